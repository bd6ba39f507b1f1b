"""Chapter: three networks learn the same sine, and how the quantized one does it, and how to break it."""

from pathlib import Path

import gradio as gr

from app import training
from app.components.code import prose
from app.components.controls import choice
from app.components.module import module_view
from app.handlers import QUIET
from app.runs.messages import PRESETS
from app.session import Session
from app.settings import NAMES

HERE = Path(__file__).parent
KEY = HERE.name
TITLE = "QAT"
LEAD = (
    "Three networks at once: one in floats (FP32), the same one rounded afterwards (PTQ), and one trained "
    "while rounded (QAT)."
)
USES = NAMES


def build(session: Session) -> None:
    """Draw the chapter."""
    with gr.Column(elem_classes="chapter wide"):
        presets = [(title, key) for key, (title, _) in PRESETS.items()]
        preset = choice("preset", "Break it on purpose", presets, training.NOT_BROKEN, render=False)
        with gr.Column(elem_classes="picture"):
            common = training.build(session, KEY, preset)
            module_view(HERE / "qat.js", "", elem_id="qat")
            preset.render()  # type: ignore[no-untyped-call]
        with gr.Column(elem_classes="text"):
            prose(HERE / "text.md")

    common.change(preset.input, training.follow_preset)
    session.changed.then(
        training.follow_settings,
        [session.progress, *session.settings],
        [*common.outputs, preset],
        **QUIET,
        trigger_mode="always_last",
    )
