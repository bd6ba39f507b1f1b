"""Chapter: an ordinary network learns a noisy sine, and how well it can."""

from pathlib import Path

import gradio as gr

from app import training
from app.components.code import prose
from app.components.module import module_view
from app.session import Session

HERE = Path(__file__).parent
KEY = HERE.name
TITLE = "The FP32 baseline"
LEAD = "What the network reaches in 32-bit floats, and why not more: the bar for all that follows."
USES = ("noise", "seed", "width", "learning_rate", "device")


def build(session: Session) -> None:
    """Draw the chapter."""
    with gr.Row(elem_classes="chapter"):
        with gr.Column(elem_classes="text"):
            prose(HERE / "text.md")
        with gr.Column(elem_classes="picture"):
            training.build(session, KEY, gr.State(training.NOT_BROKEN))
            module_view(HERE / "fp32.js", "", elem_id="fp32")
