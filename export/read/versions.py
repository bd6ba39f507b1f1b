"""Which onnx and onnxruntime load a file. Tried with onnx 1.19.1 to 1.23.2 and onnxruntime 1.22 to 1.32."""

import re
from importlib import import_module

import onnx

TRIED = {"onnx": "1.19", "onnxruntime": "1.22"}
OF_OPSET_25 = {"onnx": "1.20", "onnxruntime": "1.24"}


def opset_of(model: onnx.ModelProto) -> int:
    """Of the standard operators."""
    return max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)


def oldest(model: onnx.ModelProto) -> dict[str, str]:
    """Package -> the oldest version that loads a model."""
    return OF_OPSET_25 if opset_of(model) >= 25 else TRIED


def too_old(package: str, wanted: str) -> str:
    """What is wrong with the version that is installed, or nothing."""
    found = installed(package)
    return f"this file needs {package} {wanted} or newer; this is {found}" if is_older(found, wanted) else ""


def is_older(found: str, wanted: str) -> bool:
    return _numbers(found) < _numbers(wanted)


def installed(package: str) -> str:
    """The version that is imported here."""
    return str(import_module(package).__version__)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", text)[:2])
