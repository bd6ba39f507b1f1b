"""Reading and writing ONNX files so that a bad one gets a sentence and a good one is never half there."""

import os
import tempfile
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError


class FileError(ValueError):
    """A file cannot be used as an ONNX model; the message says why."""


def load(path: str | os.PathLike[str]) -> onnx.ModelProto:
    """The model in a file, checked in full: structure, types and shapes.

    Raises:
        FileError: there is no such file, or it is not a whole and valid ONNX model.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise FileError(f"cannot read {path}: {error.strerror or error}") from error
    try:
        model = onnx.load_model_from_string(data)
    except DecodeError as error:
        raise FileError(f"{path} is not a whole ONNX file: {len(data)} bytes that cannot be decoded") from error
    if not model.graph.node:
        raise FileError(f"{path} is not an ONNX model: {len(data)} bytes without a graph")
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise FileError(f"{path} is not a valid ONNX model: {str(error).strip().splitlines()[0]}") from error
    return model


def save(model: onnx.ModelProto, path: str | os.PathLike[str]) -> None:
    """Check the model in full, write it beside `path`, then rename: `path` is whole or untouched.

    Raises:
        FileError: the path cannot be written.
    """
    path = Path(path)
    onnx.checker.check_model(model, full_check=True)
    try:
        handle, beside = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise FileError(f"cannot write {path}: {error.strerror or error}") from error
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(model.SerializeToString())
        os.chmod(beside, 0o644)
        os.replace(beside, path)
    except OSError as error:
        os.unlink(beside)
        raise FileError(f"cannot write {path}: {error.strerror or error}") from error
