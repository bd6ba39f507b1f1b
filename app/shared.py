"""What all chapters share: the settings on the page and the visitor's progress."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from app.lab.fit import Settings
from app.progress import Progress

HOUR = 3600
MAX_NOISE = 0.5


@dataclass(frozen=True)
class Shared:
    """Components that every chapter may read.

    Attributes:
        settings: the inputs of `parse_settings`, in its order.
        progress: a `Progress`, one a visitor.
    """

    settings: Sequence[gr.components.FormComponent]
    progress: gr.State


def build(settings: Settings) -> Shared:
    """Draw the settings."""
    with gr.Row(elem_id="settings"):
        inputs = [
            gr.Radio([2, 3, 4, 8], value=settings.bits, label="Bits per weight", elem_id="bits"),
            gr.Radio(
                [("per tensor", "per_tensor"), ("per channel", "per_channel")],
                value=settings.granularity,
                label="One scale",
                elem_id="granularity",
            ),
            gr.Slider(0, MAX_NOISE, value=settings.noise, step=0.05, label="Noise of the data", elem_id="noise"),
            gr.Number(settings.seed, label="Seed", elem_id="seed"),
        ]
    gr.Markdown("Changing a setting starts anew at step 0.", elem_classes="hint")
    return Shared(inputs, gr.State(Progress.start(settings), time_to_live=HOUR))


def parse_settings(bits: Any, granularity: Any, noise: Any, seed: Any) -> Settings:
    """The settings on the page.

    Raises:
        ValueError: a value is out of range; the message names it and what was expected.
    """
    if isinstance(seed, float) and seed.is_integer():
        seed = int(seed)
    return Settings(bits=bits, granularity=granularity, noise=noise, seed=seed)


def up_to_date(progress: Progress, settings: Sequence[Any]) -> Progress:
    """The visitor's progress, or step 0 if the settings on the page are others by now.

    Raises:
        ValueError: a setting is out of range.
    """
    wanted = parse_settings(*settings)
    return progress if progress.settings == wanted else Progress.start(wanted)
