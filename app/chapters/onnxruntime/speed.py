"""How long a file takes in onnxruntime on this machine, beside the same network in float32."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn

import export
from app.runs.queue import exclusive
from qat_core import QATConfig, QuantSpec, prepare

WIDTH, LAYERS, GROUP_SIZE = 1024, 4, 32
FLAVORS = ("qdq", "ort")


@dataclass(frozen=True)
class Speed:
    """One form of a network.

    Attributes:
        flavor: "fp32", or that of the file.
        milliseconds: for one row, on one thread.
        bytes: size of the file; of "fp32" what its weights and biases take.
    """

    flavor: str
    milliseconds: float
    bytes: int


def compare_speed(files: Mapping[str, Path]) -> list[Speed]:
    """Files of one network by flavour, "qdq" among them; "fp32" comes first."""
    found = export.latency(*files.values())
    sizes = {"fp32": export.audit(files["qdq"]).fp32_bytes} | {
        name: path.stat().st_size for name, path in files.items()
    }
    return [
        Speed(flavor, row.milliseconds, size) for row, (flavor, size) in zip(found.rows, sizes.items(), strict=True)
    ]


_lock = threading.Lock()
_large: list[Speed] = []


def large_network() -> list[Speed]:
    """Four layers of 1024 x 1024 in both flavours: measured once, remembered as long as the server runs."""
    with _lock:
        if not _large:
            with TemporaryDirectory(prefix="qat-") as folder:
                files = {flavor: Path(folder, f"{flavor}.onnx") for flavor in FLAVORS}
                with exclusive(), torch.random.fork_rng(devices=[]):
                    torch.manual_seed(0)
                    layers = [nn.Linear(WIDTH, WIDTH) for _ in range(LAYERS)]
                    config = QATConfig(QuantSpec(granularity="per_group", group_size=GROUP_SIZE))
                    model = prepare(nn.Sequential(*layers), config)
                    for flavor, path in files.items():
                        export.export_onnx(model, torch.randn(2, WIDTH), path, flavor=flavor)
                _large.extend(compare_speed(files))
        return list(_large)
