"""How fast onnxruntime runs each kind of file, beside the same network in float32."""

import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from benchmarks.contenders import Library
from benchmarks.markdown import table
from benchmarks.task import Effort
from qat_core import QATConfig, QuantSpec, calibrate, prepare

TITLE = "Latency"
WHO = ("ours",)
READING = (
    "Four Linear layers of 1024 x 1024 in onnxruntime, one thread, a default session: how many times as fast as the "
    "same network in float32, which is timed in the same process, in turn with the file ({rounds} rounds of short "
    "blocks; the median of the rounds' ratios and their quartiles), and milliseconds of one call. Below 1 it is slower."
)
WIDTH, LAYERS = 1024, 4
BATCHES = (1, 64)


class File(NamedTuple):
    """A network and how it is exported."""

    config: QATConfig
    options: dict[str, str]


GROUPS = QuantSpec(granularity="per_group", group_size=32)
DYNAMIC = QuantSpec(bits=8, granularity="per_group", group_size=32, dynamic=True)
TWO_BIT_GROUPS = QuantSpec(bits=2, granularity="per_group", group_size=64)
DYNAMIC_64 = QuantSpec(bits=8, granularity="per_group", group_size=64, dynamic=True)
W2, W4, W6, W8, A8 = (*(QuantSpec(bits=bits) for bits in (2, 4, 6, 8)), QuantSpec.activation())
FILES = {
    "W4": File(QATConfig(W4), {}),
    "W4, `ort`: MatMulNBits, level 1": File(QATConfig(GROUPS), {"flavor": "ort"}),
    "W4 and dynamic A8, `ort`: MatMulNBits, level 4": File(QATConfig(GROUPS, DYNAMIC), {"flavor": "ort"}),
    "W2": File(QATConfig(W2), {}),
    "W2 and dynamic A8, `ort`: MatMulNBits, level 4": File(QATConfig(TWO_BIT_GROUPS, DYNAMIC_64), {"flavor": "ort"}),
    "W4A8": File(QATConfig(W4, A8), {}),
    'W4A8, `storage="int8"`: QGemm': File(QATConfig(W4, A8), {"storage": "int8"}),
    'W4A8, `storage="packed"`: QGemm': File(QATConfig(W4, A8), {"storage": "packed"}),
    'W2A8, `storage="packed"`: QGemm': File(QATConfig(W2, A8), {"storage": "packed"}),
    "W6A8: QGemm": File(QATConfig(W6, A8), {}),
    "W8A8: QGemm": File(QATConfig(W8, A8), {}),
}


def jobs(library: Library, effort: Effort) -> list[dict[str, Any]]:
    return [{"file": name, "batch": batch} for name in FILES for batch in BATCHES]


def measure(library: Library, job: dict[str, Any], effort: Effort) -> dict[str, Any]:
    from export import export_onnx, latency

    file = FILES[job["file"]]
    torch.manual_seed(0)
    x = torch.randn(8, WIDTH)
    model = prepare(nn.Sequential(*(nn.Linear(WIDTH, WIDTH) for _ in range(LAYERS))), file.config).eval()
    if file.config.activation:
        calibrate(model, [x])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "network.onnx")
        export_onnx(model, x, path, **file.options)  # type: ignore[arg-type]
        fp32, timed = latency(path, batch=job["batch"], rounds=effort.rounds).rows
        size = path.stat().st_size
    speed = {"speed": timed.speed, "low": timed.low, "high": timed.high}
    return {**speed, "milliseconds": timed.milliseconds, "fp32_milliseconds": fp32.milliseconds, "bytes": size}


def render(rows: dict[str, list[dict[str, Any]]]) -> str:
    (found,) = rows.values()
    cells = {(row["file"], row["batch"]): _cell(row) for row in found}
    sizes = {row["file"]: f"{row['bytes']:,}" for row in found if "bytes" in row}
    lines = [[name, sizes.get(name, "-"), *(cells.get((name, batch), "-") for batch in BATCHES)] for name in FILES]
    return table(["file", "bytes", *(f"batch {batch}" for batch in BATCHES)], lines)


def _cell(row: dict[str, Any]) -> str:
    if "failed" in row:
        return str(row["failed"])
    return f"{row['speed']:.2f} ({row['low']:.2f} to {row['high']:.2f}), {row['milliseconds']:.3f} ms"
