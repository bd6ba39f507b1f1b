"""What all chapters share: the settings on the page and the visitor's progress."""

import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from app.frames import frame
from app.lab.fit import Settings
from app.progress import Progress
from app.view import module_view

HOUR = 3600

# What the page offers. `Settings` allows more, but a visitor shares the server with others.
CHOICES: dict[str, tuple[Any, ...]] = {
    "bits": (2, 3, 4, 8),
    "granularity": ("per_tensor", "per_channel"),
    "scale": ("minmax", "mse", "learned"),
}
RANGES: dict[str, tuple[float, float]] = {
    "noise": (0, 0.5),
    "seed": (0, 2**31 - 1),
    "width": (4, 256),
    "learning_rate": (0.0001, 1),
}
WHOLE = ("seed", "width")
NAMES = ("bits", "granularity", "noise", "seed", "scale", "width", "learning_rate")
DEFAULTS: dict[str, Any] = {name: getattr(Settings(), name) for name in NAMES}


Setting = gr.Radio | gr.Slider | gr.Number


@dataclass(frozen=True)
class Shared:
    """Components that every chapter may read.

    Attributes:
        settings: the inputs of `parse_settings`, in its order.
        progress: a `Progress`, one a visitor.
        broken: another, which the chapter "QAT" breaks on purpose, or None.
        feed: frames of both, as JSON, which the browser keeps for all chapters.
        exported: the visitor's `Exported` file, or None.
    """

    settings: Sequence[Setting]
    progress: gr.State
    broken: gr.State
    feed: gr.HTML
    exported: gr.State

    @property
    def changes(self) -> list[Any]:
        """The events of the settings."""
        return [setting.change for setting in self.settings]


def build() -> Shared:
    """Draw the settings; which of them are seen is up to the chapter and the address."""
    with gr.Row(elem_id="settings"):
        inputs: dict[str, Setting] = {
            "bits": gr.Radio(
                list(CHOICES["bits"]),
                value=DEFAULTS["bits"],
                label="Bits per weight",
                elem_id="bits",
                elem_classes="choice",
            ),
            "granularity": gr.Radio(
                [("per tensor", "per_tensor"), ("per channel", "per_channel")],
                value=DEFAULTS["granularity"],
                label="One scale",
                elem_id="granularity",
                elem_classes="choice",
            ),
            "scale": gr.Radio(
                [("min-max", "minmax"), ("MSE", "mse"), ("learned", "learned")],
                value=DEFAULTS["scale"],
                label="Scale from",
                elem_id="scale",
                elem_classes="choice",
            ),
            "noise": gr.Slider(
                *RANGES["noise"],
                value=DEFAULTS["noise"],
                step=0.05,
                label="Noise of the data",
                buttons=[],
                elem_id="noise",
            ),
            "seed": gr.Number(DEFAULTS["seed"], label="Seed", elem_id="seed"),
            "width": gr.Number(DEFAULTS["width"], label="Width of the network", elem_id="width"),
            "learning_rate": gr.Number(DEFAULTS["learning_rate"], label="Learning rate", elem_id="learning_rate"),
        }
    progress = Progress.start(Settings())
    return Shared(
        settings=[inputs[name] for name in NAMES],
        progress=gr.State(progress, time_to_live=HOUR),
        broken=gr.State(None, time_to_live=HOUR),
        feed=module_view("feed.js", frame(progress), elem_id="feed"),
        exported=gr.State(None, time_to_live=HOUR),
    )


def parse_settings(
    bits: Any,
    granularity: Any,
    noise: Any,
    seed: Any,
    scale: Any = DEFAULTS["scale"],
    width: Any = DEFAULTS["width"],
    learning_rate: Any = DEFAULTS["learning_rate"],
) -> Settings:
    """The settings on the page, in the order of NAMES.

    Raises:
        ValueError: a value is not one that the page offers; the message names it and what was expected.
    """
    values = (bits, granularity, noise, seed, scale, width, learning_rate)
    return Settings(**{name: parse_setting(name, value) for name, value in zip(NAMES, values, strict=True)})


def parse_setting(name: str, value: Any) -> Any:
    """One setting, as the page offers it.

    Raises:
        ValueError: as `parse_settings`.
    """
    if name in CHOICES:
        for choice in CHOICES[name]:
            if value == choice:
                return choice
    elif isinstance(value, int | float) and not isinstance(value, bool):
        low, high = RANGES[name]
        whole = float(value).is_integer() if abs(value) < 2**53 else False
        if low <= value <= high and (whole or name not in WHOLE):
            return int(value) if name in WHOLE else value
    raise ValueError(f"{name}={reprlib.repr(value)}; expected {expected(name)}")


def expected(name: str) -> str:
    """What the page takes for a setting, in words."""
    if name in CHOICES:
        return f"one of {', '.join(map(str, CHOICES[name]))}"
    low, high = RANGES[name]
    return f"a {'whole ' if name in WHOLE else ''}number from {low} to {high}"


def up_to_date(progress: Progress, settings: Sequence[Any]) -> Progress:
    """The visitor's progress, or step 0 if the settings on the page are others by now.

    Raises:
        ValueError: a setting is out of range.
    """
    wanted = parse_settings(*settings)
    return progress if progress.settings == wanted else Progress.start(wanted)
