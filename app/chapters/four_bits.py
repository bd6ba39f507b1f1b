"""Chapter: what four bits save, and what they cost. It runs in the browser; nothing is asked of the server."""

import gradio as gr

from app.shared import Shared
from app.view import module_view, prose, to_json

KEY = "four_bits"
TITLE = "Why four bits"
USES = ()  # no setting of the page


def build(shared: Shared) -> None:
    """Draw the chapter."""
    with gr.Row(elem_classes="chapter"):
        with gr.Column(elem_classes="text"):
            prose(__file__)
        with gr.Column(elem_classes="picture"):
            module_view("four_bits.js", to_json({}), elem_id="four-bits")
