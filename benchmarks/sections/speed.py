"""How much longer a training step takes than FP32's."""

from functools import partial
from statistics import median
from typing import Any

import torch

from app.lab.data import Sine
from app.lab.models import mlp
from benchmarks.contenders import Library, nothing, trainee
from benchmarks.sections.widths import by_width
from benchmarks.task import Effort, adam, train_step
from benchmarks.timing import paired_ratio

TITLE = "Training step"
READING = (
    "Time of one training step (zero_grad, forward, loss, backward, Adam) as a multiple of the FP32 step's, which runs "
    "in the same process: {pairs} pairs of short blocks, one after the other, one thread, 256 points; the median of "
    "the pairs' ratios and their quartiles. Weights have 4 bits, one scale per channel; torchao's own quantizes two "
    "layers of the three. 1.00 would be free."
)
WIDTHS = {"cpu": (64, 1024), "cuda": (64, 1024, 4096)}
NO_GPU = (
    "No GPU was there: what a step costs on one, and whether the page's training is quicker there, is not measured."
)


def jobs(library: Library, effort: Effort) -> list[dict[str, Any]]:
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    return [{"device": d, "width": w, "recipe": r} for d in devices for r in library.TIMED for w in WIDTHS[d]]


def measure(library: Library, job: dict[str, Any], effort: Effort) -> dict[str, float]:
    device = torch.device(job["device"])
    data, fp32 = Sine.sample().to(device), mlp(job["width"]).to(device)
    trained = trainee(library, mlp(job["width"]).to(device), data.x, 4, "per_channel", job["recipe"], effort.steps)
    fp32_step = partial(train_step, fp32, adam(fp32.parameters()), nothing, data.x, data.y)
    return paired_ratio(fp32_step, partial(train_step, *trained, data.x, data.y), effort.pairs, job["device"])


def render(rows: dict[str, list[dict[str, Any]]]) -> str:
    found = [row for contender in rows.values() for row in contender]
    devices = list(dict.fromkeys(row["device"] for row in found))
    return "\n\n".join([*(_device(rows, device) for device in devices), *([] if "cuda" in devices else [NO_GPU])])


def _device(rows: dict[str, list[dict[str, Any]]], device: str) -> str:
    """The table of one device."""
    here = {name: [row for row in found if row["device"] == device] for name, found in rows.items()}
    widths = WIDTHS[device]
    baseline = [f"FP32, milliseconds on {device}", "", *(_baseline(here, width) for width in widths)]
    return by_width(here, widths, _cell, baseline)


def _baseline(rows: dict[str, list[dict[str, Any]]], width: int) -> str:
    times = [row["baseline_ms"] for found in rows.values() for row in found if row["width"] == width and "ratio" in row]
    return f"{median(times):.2f}" if times else "-"


def _cell(row: dict[str, Any]) -> str:
    return f"{row['ratio']:.2f} ({row['low']:.2f} to {row['high']:.2f})"
