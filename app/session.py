"""What one visitor has: the settings on the page, their experiments and their file."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.events import Dependency

from app.components.controls import choice
from app.components.module import STATIC, module_view
from app.lab import devices
from app.lab.fit import Settings
from app.runs.messages import frame
from app.runs.progress import Progress
from app.settings import CHOICES, DEFAULTS, NAMES, RANGES, parse_settings

HOUR = 3600

Setting = gr.Radio | gr.Slider | gr.Number

# The address in the browser follows the settings.
PUBLISH = "(...values) => { window.dispatchEvent(new CustomEvent('settings', { detail: values })); }"


@dataclass(frozen=True)
class Session:
    """Components that every chapter may read.

    Attributes:
        settings: the inputs of `parse_settings`, in its order.
        changed: the event of all of them. What follows it comes by its `then`: two handlers of one `change` that are
            both late would call each other forever (docs/upstream.md).
        progress: a `Progress`, one a visitor.
        broken: another, which the chapter "QAT" breaks on purpose, or None.
        feed: frames of both, as JSON, which the browser keeps for all chapters.
        exported: the visitor's `Exported` file, or None.
    """

    settings: Sequence[Setting]
    changed: Dependency
    progress: gr.State
    broken: gr.State
    feed: gr.HTML
    exported: gr.State


def build() -> Session:
    """Draw the settings; which of them are seen is up to the chapter and the address."""
    with gr.Row(elem_id="settings"):
        values = DEFAULTS
        inputs: list[Setting] = [
            choice("bits", "Bits per weight", CHOICES["bits"], values["bits"]),
            choice(
                "granularity",
                "One scale",
                [("per tensor", "per_tensor"), ("per channel", "per_channel")],
                values["granularity"],
            ),
            choice(
                "scale", "Scale from", [("min-max", "minmax"), ("MSE", "mse"), ("learned", "learned")], values["scale"]
            ),
            gr.Slider(
                *RANGES["noise"], values["noise"], step=0.05, label="Noise of the data", buttons=[], elem_id="noise"
            ),
            gr.Number(values["seed"], label="Seed", elem_id="seed"),
            gr.Number(values["width"], label="Width of the network", elem_id="width"),
            gr.Number(values["learning_rate"], label="Learning rate", elem_id="learning_rate"),
            choice(
                "device", "Trains on", [(devices.title(name), name) for name in CHOICES["device"]], values["device"]
            ),
        ]
    progress = Progress.start(Settings())
    settings = sorted(inputs, key=lambda setting: NAMES.index(setting.elem_id))
    changes = [setting.change for setting in settings]
    return Session(
        settings=settings,
        changed=gr.on(changes, None, settings, js=PUBLISH, show_progress="hidden", api_visibility="private"),
        progress=gr.State(progress, time_to_live=HOUR),
        broken=gr.State(None, time_to_live=HOUR),
        feed=module_view(STATIC / "data" / "feed.js", frame(progress), elem_id="feed"),
        exported=gr.State(None, time_to_live=HOUR),
    )


def up_to_date(progress: Progress, settings: Sequence[Any]) -> Progress:
    """The visitor's progress, or step 0 if the settings on the page are others by now.

    Raises:
        ValueError: a setting is out of range.
    """
    wanted = parse_settings(*settings)
    return progress if progress.settings == wanted else Progress.start(wanted)
