"""Handwritten digits: a small CNN whose weights and activations are quantized, and a budget of three bits."""

import math
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn

from app.lab.tasks import DigitsTask
from benchmarks.contenders import Library, nothing
from benchmarks.markdown import table
from benchmarks.task import Effort
from qat_core import QATConfig, QuantSpec, Schedule, calibrate, prepare, sensitivity, suggest

TITLE = "Handwritten digits"
WHO = ("ours",)
READING = (
    "Percent of 360 handwritten digits recognized that were never trained on: the median of 3 seeds, and each of them. "
    "A CNN of 16, 32 and 32 channels, 1,437 digits, 25 epochs, the first 40 % of them in float. One image is 0.28 "
    "points. W2A4 stands for weights of 2 bits and activations of 4. Scales are learned, one a channel and one an "
    "input; PTQ is the trained float32 network with min-max scales."
)
NOTES = """
- Mixed precision: `sensitivity` measures each layer at 2, 3, 4 and 8 bits by the loss on the training images, and
  `suggest` spends as many bytes as 3 bits everywhere would take; then it is trained as all others are."""
SEEDS = 3


def quantized(weight_bits: float, activation_bits: float) -> QATConfig:
    return QATConfig(QuantSpec(weight_bits, scale="learned"), QuantSpec.activation(activation_bits, scale="learned"))


LEARNED = QATConfig(QuantSpec(3, scale="learned"))
CONFIGS: dict[str, QATConfig] = {
    "W4A8": quantized(4, 8),
    "W4A4": quantized(4, 4),
    "W2A2": quantized(2, 2),
    "W3, every layer": LEARNED,
}
PTQ = {
    f"PTQ W{bits} {granularity.replace('_', ' ')}": QATConfig(QuantSpec(bits, granularity))
    for bits in (4, 2)
    for granularity in ("per_channel", "per_tensor")
}
MIXED = "mixed, as many bytes as W3"
RECIPES = ("float32", *CONFIGS, MIXED, *PTQ)


def jobs(library: Library, effort: Effort) -> list[dict[str, Any]]:
    return [{"recipe": recipe, "seed": seed} for recipe in RECIPES for seed in range(min(SEEDS, effort.seeds))]


def measure(library: Library, job: dict[str, Any], effort: Effort) -> dict[str, Any]:
    recipe, task = job["recipe"], DigitsTask(job["seed"], torch.device("cpu"))
    steps = min(effort.steps, task.steps)
    if recipe in CONFIGS:
        model = train(task, steps, job["seed"], CONFIGS[recipe])
        return {"accuracy": accuracy(task, model), "in_onnxruntime": accuracy_of_file(task, model)}
    fp32 = train(task, steps, job["seed"])
    if recipe in PTQ:
        return {"accuracy": accuracy(task, calibrate(prepare(fp32, PTQ[recipe]), [task.x]))}
    if recipe == MIXED:
        config = mixed(task, fp32)
        return {"accuracy": accuracy(task, train(task, steps, job["seed"], config)), "bits": bits_of(config)}
    return {"accuracy": accuracy(task, fp32)}


def train(task: DigitsTask, steps: int, seed: int, config: QATConfig | None = None) -> nn.Module:
    """Adam with a cosine decay to 0, from the same first weights whatever the config."""
    model: nn.Module = task.model(0, seed)
    after_step: Callable[[], Any] = nothing
    if config is not None:
        model = prepare(model, config)
        after_step = Schedule(model, quantize_after=int(task.float_share * steps)).step
    optimizer = torch.optim.Adam(model.parameters(), lr=task.learning_rate)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = task.learning_rate * (1 + math.cos(math.pi * step / steps)) / 2
        optimizer.zero_grad()
        task.loss(model, step).backward()
        optimizer.step()
        after_step()
    return model.eval()


def mixed(task: DigitsTask, fp32: nn.Module) -> QATConfig:
    """The widths that hurt the training loss least, in the bytes of 3 bits everywhere."""
    mse = QATConfig(replace(LEARNED.weight, scale="mse"))
    rows = sensitivity(fp32, lambda model: task.measure(model)[0]["loss_train"], mse, progress=False)
    found = suggest(rows, sum(row.bytes_at(3) for row in rows))
    learned = {
        name: QATConfig(replace(config.weight, scale="learned")) for name, config in found.overrides.items() if config
    }
    return QATConfig(LEARNED.weight, overrides=learned)


def bits_of(config: QATConfig) -> str:
    return ", ".join(f"{override.weight.bits:g}" for override in config.overrides.values() if override)


@torch.no_grad()
def accuracy(task: DigitsTask, model: nn.Module) -> float:
    return task.accuracy(model(task.examples))


def accuracy_of_file(task: DigitsTask, model: nn.Module) -> float:
    """Of the exported file, in a default session of onnxruntime."""
    from export import export_onnx
    from export.read.runtime import run, session

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "digits.onnx")
        export_onnx(model, task.examples, path)
        (scores,) = run(session(path), [task.examples.numpy()])
    return task.accuracy(torch.from_numpy(scores))


def render(rows: dict[str, list[dict[str, Any]]]) -> str:
    (found,) = rows.values()
    lines = []
    for recipe in dict.fromkeys(row["recipe"] for row in found):
        here = [row for row in found if row["recipe"] == recipe]
        failed = next((row["failed"] for row in here if "failed" in row), None)
        bits = "; ".join(dict.fromkeys(row["bits"] for row in here if "bits" in row))
        lines.append(
            [
                recipe + (f" ({bits} bits)" if bits else ""),
                failed or _percent([row["accuracy"] for row in here]),
                _percent([row["in_onnxruntime"] for row in here if "in_onnxruntime" in row]),
            ]
        )
    return table(["network", "PyTorch", "the file, in onnxruntime"], lines) + "\n" + NOTES


def _percent(values: list[float]) -> str:
    if not values:
        return "-"
    return f"{100 * median(values):.2f} ({', '.join(f'{100 * value:.2f}' for value in values)})"
