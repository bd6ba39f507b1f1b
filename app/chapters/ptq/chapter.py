"""Chapter: round a trained network, and see which roundings it survives."""

from pathlib import Path
from typing import Any

import gradio as gr
import torch

from app import training
from app.components.code import prose
from app.components.module import module_view
from app.handlers import QUIET
from app.lab.fit import Experiment
from app.lab.weights import largest_layer
from app.runs.diagnosis import number, percent
from app.runs.messages import rounded, significant, to_json
from app.runs.progress import Progress
from app.runs.queue import exclusive
from app.session import Session, up_to_date
from qat_core import QATConfig, QuantSpec, calibrate, convert, prepare

HERE = Path(__file__).parent
KEY = HERE.name
TITLE = "Naive PTQ"
LEAD = "Rounding a trained network costs nothing. Guess what 4 bits do to its curve, then look."
USES = ("noise", "seed", "width", "learning_rate", "device")

BITS = (8, 4, 3, 2)
GRIDS = (("per_tensor", "minmax"), ("per_tensor", "mse"), ("per_channel", "minmax"), ("per_channel", "mse"))


def build(session: Session) -> None:
    """Draw the chapter."""
    with gr.Row(elem_classes="chapter"):
        with gr.Column(elem_classes="text"):
            prose(HERE / "text.md")
        with gr.Column(elem_classes="picture"):
            with gr.Row(elem_classes="run-buttons"):
                first = gr.Button("Train it first (about 4 s)", variant="primary", elem_id="train-first")
                crush = gr.Button("Round it and show the truth", variant="primary", elem_id="crush")
            view = module_view(HERE / "ptq.js", "{}", elem_id="ptq")

    training.handlers(session, KEY, gr.State(training.NOT_BROKEN)).run(first, training.train_quickly)
    crush.click(crush_network, [session.progress, *session.settings], view, **QUIET)


def crush_network(progress: Progress, *settings: Any) -> str:
    """The visitor's FP32 network as it is now, rounded in 16 ways: what `ptq.js` draws."""
    try:
        progress = up_to_date(progress, settings)
    except ValueError as error:
        return to_json({"problem": f"Nothing was rounded: {error}."})
    snapshot = progress.snapshot
    with exclusive():
        return to_json(crushed(progress, Experiment.restore(snapshot)))


def crushed(progress: Progress, experiment: Experiment) -> dict[str, Any]:
    """Needs a turn."""
    fp32, task = experiment.models["fp32"], experiment.task
    metrics, curve = task.measure(fp32.eval())
    weight = max((p.detach() for p in fp32.parameters()), key=torch.numel)  # the hidden layer's
    cells = []
    for bits in BITS:
        for granularity, scale in GRIDS:
            config = QATConfig(QuantSpec(bits, granularity, scale=scale))  # type: ignore[arg-type]
            model = calibrate(prepare(fp32, config), [task.x])
            layer = largest_layer(model)
            zeros = (layer.weight_quantizer.codes(layer.weight) == 0).float().mean().item()
            _, steps = layer.weight_quantizer.with_scale(layer.weight)
            error, rounded_curve = task.measure(convert(model))
            cells.append(
                {
                    "bits": bits,
                    "granularity": granularity,
                    "scale": scale,
                    "error": significant(error["mse_clean"]),
                    "zeros": round(zeros, 4),
                    "curve": rounded(rounded_curve),
                    "words": in_words(bits, granularity, steps, zeros, error["mse_clean"]),
                }
            )
    return {
        "key": f"{hash(progress.settings):x}",
        "step": progress.step,
        "label": progress.label,
        "error": significant(metrics["mse_clean"]),
        "curve": rounded(curve),
        "typical": significant(weight.abs().median().item()),
        "largest": significant(weight.abs().max().item()),
        "cells": cells,
    }


def in_words(bits: int, granularity: str, steps: torch.Tensor, zeros: float, error: float) -> str:
    """What one rounding does to the hidden layer, and what comes of it."""
    finest, coarsest = number(steps.min().item()), number(steps.max().item())
    size = f"one step of the grid is {coarsest}"
    if granularity == "per_channel":
        size = f"one step is {finest} in the finest channel and {coarsest} in the coarsest"
    return (
        f"With {bits} bits {size}; {percent(zeros)} of the hidden layer's weights become 0. "
        f"Error against the sine: {number(error)}."
    )
