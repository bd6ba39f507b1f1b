"""How long an export and its full parity check take, in a new process and in one that has exported before."""

import json
import subprocess
import sys
from statistics import median
from typing import Any

from benchmarks.contenders import Library
from benchmarks.markdown import table
from benchmarks.one_export import ACTIVATIONS
from benchmarks.task import Effort

TITLE = "Export"
WHO = ("ours",)
READING = (
    "Seconds for `export_onnx`, which proves its file at four optimization levels, and `check_parity` on 256 points "
    "after it: the lab's network, 1-64-64-1, 4 bits. First: in a new process, with the import of `export` and of what "
    "torch loads for an export, but without `import torch`. Again: the median of {exports} more in the same process. "
    "The median of {starts} processes and their range; beside it the processor's share of it, since others use this "
    "machine too."
)


def jobs(library: Library, effort: Effort) -> list[dict[str, Any]]:
    return [{"network": name} for name in ACTIVATIONS]


def measure(library: Library, job: dict[str, Any], effort: Effort) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.one_export", job["network"], str(effort.exports)]
    starts = [json.loads(subprocess.check_output(command)) for _ in range(effort.starts)]
    return {key: [start[key] for start in starts] for key in starts[0]}


def render(rows: dict[str, list[dict[str, Any]]]) -> str:
    (found,) = rows.values()
    lines = [
        [row["network"], row["failed"]]
        if "failed" in row
        else [row["network"], *(_cell(row[when], row[f"{when}_processor"]) for when in ("first", "again"))]
        for row in found
    ]
    return table(["network", "first", "again"], lines)


def _cell(seconds: list[float], processor: list[float]) -> str:
    return f"{median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f}), processor {median(processor):.2f}"
