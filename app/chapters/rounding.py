"""Chapter: what rounding does to one weight, and one scale to a matrix. It runs in the browser."""

from pathlib import Path

import gradio as gr

from app.shared import Shared
from app.view import module_view, prose, to_json

KEY = "rounding"
TITLE = "Rounding"
USES = ()  # no setting of the page


def build(shared: Shared) -> None:
    """Draw the chapter: a weight on the stairs, a matrix on its levels, and a question."""
    here = Path(__file__)
    for page, module, elem_id in (
        ("rounding", "rounding.js", "rounding"),
        ("rounding_granularity", "granularity.js", "granularity-strips"),
        ("rounding_mistakes", "mistakes.js", "mistakes"),
    ):
        with gr.Row(elem_classes="chapter"):
            with gr.Column(elem_classes="text"):
                prose(str(here.with_name(f"{page}.py")))
            with gr.Column(elem_classes="picture"):
                module_view(module, to_json({}), elem_id=elem_id)
