"""Reading and writing ONNX files so that a bad one gets a sentence and a good one is never half there."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

EXTERNAL_DATA_FROM = 2**31 - 2**26  # bytes of tensors: protobuf holds less than 2 GB, nodes and metadata included
SMALLEST_EXTERNAL = 1024


class FileError(ValueError):
    """A file cannot be used as an ONNX model; the message says why."""


def load(path: str | os.PathLike[str]) -> onnx.ModelProto:
    """The model in a file, checked in full: structure, types and shapes; external data is read as well.

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
        onnx.checker.check_model(os.fspath(path), full_check=True)
        onnx.load_external_data_for_model(model, os.fspath(path.parent))
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError, OSError) as error:
        raise FileError(f"{path} is not a valid ONNX model: {first_line(error)}") from error
    return model


@contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A place beside `path` to write to: when the block ends well its files are renamed to where they belong.

    Raises:
        FileError: the path cannot be written.
    """
    path = Path(path)
    if path.is_dir():
        raise FileError(f"cannot write {path}: it is a folder")
    if path.exists() and not path.is_file():  # renaming a file to it would take a device or a pipe away
        raise FileError(f"cannot write {path}: it is no file")
    try:
        folder = tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise FileError(f"cannot write {path}: {error.strerror or error}") from error
    with folder:
        target = Path(folder.name, path.name)
        try:
            yield target
            for file in sorted(Path(folder.name).iterdir(), reverse=True):  # the data before the model that names it
                os.replace(file, path.parent / file.name)
        except OSError as error:
            raise FileError(f"cannot write {path}: {error.strerror or error}") from error


def write(model: onnx.ModelProto, target: Path) -> None:
    """Write a model, from 2 GB on with its tensors in a second file, `<name>.data`, and check it in full."""
    if fits_one_file(model):
        target.write_bytes(model.SerializeToString())
    else:
        write_in_two(model, target)
    onnx.checker.check_model(os.fspath(target), full_check=True)


def fits_one_file(model: onnx.ModelProto) -> bool:
    """Is it small enough for protobuf? Which cannot be asked: it counts bytes by writing them, and fails."""
    return sum(len(tensor.raw_data) for tensor in model.graph.initializer) < EXTERNAL_DATA_FROM


def write_in_two(model: onnx.ModelProto, target: Path) -> None:
    """Write the graph to one file and its tensors beside it; the model is left as it is."""
    data = f"{target.name}.data"
    target.with_name(data).unlink(missing_ok=True)
    onnx.save_model(model, target, save_as_external_data=True, location=data, size_threshold=SMALLEST_EXTERNAL)
    onnx.load_external_data_for_model(model, os.fspath(target.parent))


def file_bytes(path: str | os.PathLike[str]) -> int:
    """Size of a model with its external data."""
    path = Path(path)
    data = path.with_name(f"{path.name}.data")
    return path.stat().st_size + (data.stat().st_size if data.exists() else 0)


def first_line(error: Exception) -> str:
    """What an error of onnx or onnxruntime says, without the details below it."""
    return str(error).strip().partition("\n")[0]
