"""Chapter: the gradient that is put in the place of the stairs' own. It runs in the browser."""

from pathlib import Path

import gradio as gr

from app.components.code import listing, prose
from app.components.module import module_view
from app.session import Session
from qat_core import STEQuantize
from qat_core.lsq import LSQuantize
from qat_core.ste import where_not_clamped

HERE = Path(__file__).parent
TITLE = "The straight-through estimator"
USES = ()  # no setting of the page


def build(session: Session) -> None:
    """Draw the chapter: the estimator, its code, the learned scale, its code."""
    with gr.Row(elem_classes="chapter wide"):
        with gr.Column(elem_classes="text"):
            prose(HERE / "text.md")
        with gr.Column(elem_classes="picture"):
            module_view(HERE / "ste.js", "{}", elem_id="ste")
    listing(STEQuantize, where_not_clamped)
    with gr.Row(elem_classes="chapter"):
        with gr.Column(elem_classes="text"):
            prose(HERE / "lsq.md")
        with gr.Column(elem_classes="picture"):
            module_view(HERE / "lsq.js", "{}", elem_id="lsq")
    listing(LSQuantize)
