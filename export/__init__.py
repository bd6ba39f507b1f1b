"""Quantized models as ONNX files that onnxruntime answers exactly as PyTorch did, and the proof of it.

What makes files needs torch; what reads and checks them does not, and does not wait for it.
"""

from typing import TYPE_CHECKING, Any

from export.read.audit import Audit, audit
from export.read.compare import Divergence, LevelParity, ParityError, ParityReport, Parting
from export.read.files import FileError
from export.read.kernels import KernelError, Kernels
from export.read.latency import Latency, latency
from export.read.proof import Proof
from export.read.receipt import ReceiptError, check
from export.read.runtime import Setup

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
    "audit",
    "check",
    "check_parity",
    "export_onnx",
    "latency",
]


def __getattr__(name: str) -> Any:
    """Import torch when it is needed."""
    if name == "export_onnx":
        from export.write.exporter import export_onnx

        return export_onnx
    if name == "check_parity":
        from export.write.parity import check_parity

        return check_parity
    raise AttributeError(f"module 'export' has no attribute {name!r}")
