"""What flavor="auto" makes of networks that people deploy: which forms, and how fast."""

import tempfile
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.contenders import Library
from benchmarks.deployed import DEPLOYED
from benchmarks.markdown import table
from benchmarks.task import Effort
from qat_core import calibrate, prepare

TITLE = 'Measured forms: `flavor="auto"`'
WHO = ("ours",)
READING = (
    "Networks with 4-bit weights, exported in one call that measures and takes for each layer the form that is "
    "quickest at that batch on this machine: how many times as fast as the same network in float32, both timed in turn "
    "on one thread ({rounds} rounds; the median of the rounds' ratios and their quartiles), and how many layers have "
    "which form. Activations have static scales of 8 bits, or stay in float where it says so. Every file answers as "
    "PyTorch at every level of optimization, or it would not be there. Behind quantized activations no layer can be in "
    "float, so that such a file may be slower; `min_speedup=1.0` refuses it."
)
BATCHES = (1, 32)


def jobs(library: Library, effort: Effort) -> list[dict[str, Any]]:
    return [{"network": name, "batch": batch} for name in DEPLOYED for batch in BATCHES]


def measure(library: Library, job: dict[str, Any], effort: Effort) -> dict[str, Any]:
    from export import export_onnx, latency

    network = DEPLOYED[job["network"]]
    torch.manual_seed(0)
    inputs = network.inputs(job["batch"])
    model = prepare(network.build(), network.config).eval()
    if network.config.activation:
        calibrate(model, [network.inputs(32)])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "network.onnx")
        report = export_onnx(model, inputs, path, flavor="auto")
        fp32, timed = latency(path, inputs=[x.numpy() for x in inputs], rounds=effort.rounds).rows
        size = path.stat().st_size
    weights = sum(parameter.numel() for parameter in model.parameters())
    speed = {"speed": timed.speed, "low": timed.low, "high": timed.high}
    times = {"milliseconds": timed.milliseconds, "fp32_milliseconds": fp32.milliseconds}
    forms = dict(Counter(choice.form for choice in report.choices))
    return {**speed, **times, "bytes": size, "fp32_bytes": 4 * weights, "forms": forms, "parity": report.outcome}


def render(rows: dict[str, list[dict[str, Any]]]) -> str:
    (found,) = rows.values()
    cells = {(row["network"], row["batch"]): _cell(row) for row in found}
    names = dict.fromkeys(row["network"] for row in found)
    lines = [[_title(name), *(cells.get((name, batch), "-") for batch in BATCHES)] for name in names]
    speeds = {batch: [row["speed"] for row in found if row["batch"] == batch and "speed" in row] for batch in BATCHES}
    middle = ["median", *(f"{median(of):.2f}" if of else "-" for of in speeds.values())]
    return table(["network", *(f"batch {batch}" for batch in BATCHES)], [*lines, middle])


def _title(name: str) -> str:
    return name if DEPLOYED[name].config.activation else f"{name}, weights only"


def _cell(row: dict[str, Any]) -> str:
    if "failed" in row:
        return str(row["failed"])
    forms = ", ".join(f"{count} {form}" for form, count in row["forms"].items())
    size = f"{row['bytes'] / row['fp32_bytes']:.2f} of the bytes"
    return (
        f"{row['speed']:.2f} ({row['low']:.2f} to {row['high']:.2f}), {row['milliseconds']:.3g} ms<br>{forms}; {size}"
    )
