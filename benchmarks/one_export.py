"""Times the exports of one process: `python -m benchmarks.one_export "weights only" 5` prints one JSON object."""

import json
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from torch import nn

from app.lab.data import Sine
from app.lab.models import mlp
from app.lab.threads import fix_threads
from qat_core import QATConfig, QuantSpec, calibrate, prepare

ACTIVATIONS = {"weights only": None, "8-bit activations": QuantSpec.activation()}


def main(network: str, exports: int) -> None:
    fix_threads()
    data = Sine.sample()
    model = prepare(mlp(), QATConfig(activation=ACTIVATIONS[network])).eval()
    if ACTIVATIONS[network]:
        calibrate(model, [data.x])
    with tempfile.TemporaryDirectory() as folder:
        first, *again = [_seconds(model, data, Path(folder, "lab.onnx")) for _ in range(1 + exports)]
    answer = {"first": first[0], "first_processor": first[1]}
    answer |= {"again": median(t for t, _ in again), "again_processor": median(t for _, t in again)}
    print(json.dumps(answer))


def _seconds(model: nn.Module, data: Sine, path: Path) -> tuple[float, float]:
    """On the clock, and of the processor."""
    start, processor = time.perf_counter(), time.process_time()
    from export import check_parity, export_onnx

    export_onnx(model, data.x, path)
    check_parity(model, path, data.x).raise_if_broken()
    return time.perf_counter() - start, time.process_time() - processor


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
