"""Quantized models as ONNX files that onnxruntime answers exactly as PyTorch did, and the proof of it.

What makes files needs torch; what reads and checks them does not, and does not wait for it.
"""

from typing import TYPE_CHECKING, Any

from export.audit import Audit, audit
from export.compare import LevelParity, ParityError, ParityReport, Parting
from export.files import FileError
from export.kernels import KernelError, Kernels
from export.latency import Latency, latency
from export.proof import Proof
from export.receipt import ReceiptError, check
from export.runtime import Setup

if TYPE_CHECKING:
    from export.exporter import export_onnx
    from export.parity import check_parity

__all__ = [
    "Audit",
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
        from export.exporter import export_onnx

        return export_onnx
    if name == "check_parity":
        from export.parity import check_parity

        return check_parity
    raise AttributeError(f"module 'export' has no attribute {name!r}")
