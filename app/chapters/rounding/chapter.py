"""Chapter: what rounding does to one weight, and one scale to a matrix. It runs in the browser."""

from pathlib import Path

import gradio as gr

from app.components.code import prose
from app.components.module import module_view
from app.session import Session

HERE = Path(__file__).parent
TITLE = "Rounding"
USES = ()  # no setting of the page


def build(session: Session) -> None:
    """Draw the chapter: a weight on the stairs, a matrix on its levels, and a question."""
    for text, module, elem_id in (
        ("text.md", "rounding.js", "rounding"),
        ("granularity.md", "granularity.js", "granularity-strips"),
        ("mistakes.md", "mistakes.js", "mistakes"),
    ):
        with gr.Row(elem_classes="chapter"):
            with gr.Column(elem_classes="text"):
                prose(HERE / text)
            with gr.Column(elem_classes="picture"):
                module_view(HERE / module, "{}", elem_id=elem_id)
