"""Quantized models as ONNX files that onnxruntime answers as PyTorch did, and the proof of it."""

from export.audit import Audit, audit
from export.exporter import export_onnx
from export.files import FileError
from export.parity import LevelParity, ParityError, ParityReport, check_parity
from export.receipt import ReceiptError, check

__all__ = [
    "Audit",
    "FileError",
    "LevelParity",
    "ParityError",
    "ParityReport",
    "ReceiptError",
    "audit",
    "check",
    "check_parity",
    "export_onnx",
]
