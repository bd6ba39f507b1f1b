"""Chapter: an ordinary network learns a noisy sine, and how well it can."""

import gradio as gr

from app import training
from app.shared import Shared
from app.view import module_view, prose

KEY, TITLE = "fp32", "The FP32 baseline"
USES = ("noise", "seed", "width", "learning_rate")


def build(shared: Shared) -> None:
    """Draw the chapter."""
    with gr.Row(elem_classes="chapter"):
        with gr.Column(elem_classes="text"):
            prose(__file__)
        with gr.Column(elem_classes="picture"):
            training.build(shared, KEY, gr.State(training.MINE))
            module_view("fp32.js", "", elem_id="fp32")
