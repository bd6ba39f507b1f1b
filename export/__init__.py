"""Quantized models as ONNX files that onnxruntime answers exactly as PyTorch did, and the proof of it.

What makes files needs torch; what reads and checks them does not, and does not wait for it.
"""

import importlib
from typing import TYPE_CHECKING, Any

from export.read.audit import Audit, audit
from export.read.compare import Divergence, LevelParity, ParityReport, Parting
from export.read.distance import ParityError
from export.read.files import FileError
from export.read.kernels import KernelError, Kernels
from export.read.latency import Latency, latency
from export.read.proof import Proof
from export.read.receipt import ReceiptError, check
from export.read.runtime import Setup
from export.read.speed import Speed, SpeedError

if TYPE_CHECKING:
    from export.write.exporter import export_onnx
    from export.write.parity import check_parity

__all__ = [
    "Audit",
    "Divergence",
    "FileError",
    "KernelError",
    "Kernels",
    "Latency",
    "LevelParity",
    "ParityError",
    "ParityReport",
    "Parting",
    "Proof",
    "ReceiptError",
    "Setup",
    "Speed",
    "SpeedError",
    "audit",
    "check",
    "check_parity",
    "export_onnx",
    "latency",
]

NEEDS_TORCH = {"export_onnx": "export.write.exporter", "check_parity": "export.write.parity"}


def __getattr__(name: str) -> Any:
    """Import torch when it is needed."""
    if name not in NEEDS_TORCH:
        raise AttributeError(f"module 'export' has no attribute {name!r}")
    return getattr(importlib.import_module(NEEDS_TORCH[name]), name)
