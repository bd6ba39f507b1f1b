"""The memory that one export of a large model takes: `python -m benchmarks.large_export 100` prints one JSON object."""

import io
import json
import resource
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import nn

from app.lab.threads import fix_threads
from export import export_onnx
from qat_core import prepare

WIDTH = 4096


def main(millions: int) -> None:
    fix_threads()
    export_onnx(prepare(nn.Linear(8, 8)).eval(), torch.randn(2, 8), io.BytesIO())  # what is imported for the first
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    width = min(WIDTH, round((millions * 1e6 / 4) ** 0.5))
    count = round(millions * 1e6 / width**2)
    model = prepare(nn.Sequential(*(nn.Linear(width, width) for _ in range(count))), inplace=True).eval()
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        export_onnx(model, torch.randn(2, width), Path(folder, "large.onnx"))
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    fp32_bytes = sum(p.numel() * p.element_size() for p in model.parameters())
    print(json.dumps({"peak": 1024 * (peak - before) / fp32_bytes, "seconds": seconds, "fp32_bytes": fp32_bytes}))


if __name__ == "__main__":
    main(int(sys.argv[1]))
