"""Chapter: what four bits save, and what they cost. It runs in the browser; nothing is asked of the server."""

from pathlib import Path

import gradio as gr

from app.components.code import prose
from app.components.module import module_view
from app.session import Session

HERE = Path(__file__).parent
TITLE = "Why four bits"
USES = ()  # no setting of the page


def build(session: Session) -> None:
    """Draw the chapter."""
    with gr.Row(elem_classes="chapter"):
        with gr.Column(elem_classes="text"):
            prose(HERE / "text.md")
        with gr.Column(elem_classes="picture"):
            module_view(HERE / "four_bits.js", "{}", elem_id="four-bits")
