"""How much memory and time the export of a large model takes, in a process of its own."""

import json
import subprocess
import sys
from typing import Any

from benchmarks.contenders import Library
from benchmarks.markdown import table
from benchmarks.task import Effort

TITLE = "Export of large models"
WHO = ("ours",)
READING = (
    "Linear layers of at most 4096 x 4096, 4 bits, a scale per channel. The most memory that the process held while it "
    "exported, over what it held before there was a model, as a multiple of the model's FP32 bytes: the model is one "
    "of them, the weights that a session unpacks in a call, or those of the float32 twin that the file is timed "
    "beside, another, with what its arena rounds up, and the codes a third of one. Seconds on the clock, proof and "
    "timing included."
)


def jobs(library: Library, effort: Effort) -> list[dict[str, Any]]:
    return [{"millions": millions} for millions in effort.sizes]


def measure(library: Library, job: dict[str, Any], effort: Effort) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.large_export", str(job["millions"])]
    found: dict[str, float] = json.loads(subprocess.check_output(command))
    return found


def render(rows: dict[str, list[dict[str, Any]]]) -> str:
    (found,) = rows.values()
    lines = [
        [f"{row['millions']} million", row["failed"]]
        if "failed" in row
        else [f"{row['millions']} million", f"{row['peak']:.1f}", f"{row['seconds']:.0f}"]
        for row in found
    ]
    return table(["parameters", "peak memory, x FP32", "seconds"], lines)
