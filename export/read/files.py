"""Reading and writing ONNX files so that a bad one gets a sentence and a good one is never half there."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import onnx
from google.protobuf.message import DecodeError

from export.read.versions import oldest, too_old

EXTERNAL_DATA_FROM = 2**31 - 2**26  # bytes of tensors: protobuf holds less than 2 GB, nodes and metadata included
SMALLEST_EXTERNAL = 1024
ONNX_ERRORS = (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError, OSError)
Source = str | os.PathLike[str] | bytes | BinaryIO
Target = str | os.PathLike[str] | BinaryIO


class FileError(ValueError):
    """A file cannot be used as an ONNX model; the message says why."""


def load(source: Source) -> onnx.ModelProto:
    """The model in a file, checked in full: structure, types and shapes; external data is read as well.

    Args:
        source: a path, the bytes of a file, or an open binary file, which is read from its beginning and left open.

    Raises:
        FileError: there is no such file, or it is not a whole and valid ONNX model.
    """
    data = contents(source)
    name = os.fspath(source) if isinstance(source, str | os.PathLike) else "the model"
    try:
        model = onnx.load_model_from_string(data)
    except DecodeError as error:
        raise FileError(f"{name} is not a whole ONNX file: {len(data)} bytes that cannot be decoded") from error
    if not model.graph.node:
        raise FileError(f"{name} is not an ONNX model: {len(data)} bytes without a graph")
    if problem := too_old("onnx", oldest(model)["onnx"]):
        raise FileError(f"{name} cannot be read: {problem}")
    try:
        if isinstance(source, str | os.PathLike):
            onnx.checker.check_model(os.fspath(source), full_check=True)
            onnx.load_external_data_for_model(model, os.fspath(Path(source).parent))
        else:
            onnx.checker.check_model(data, full_check=True)
    except ONNX_ERRORS as error:
        raise FileError(f"{name} is not a valid ONNX model: {first_line(error)}") from error
    return model


def contents(source: Source) -> bytes:
    """The bytes of a file.

    Raises:
        FileError: there is none.
    """
    if isinstance(source, bytes):
        return source
    if not isinstance(source, str | os.PathLike):
        if not hasattr(source, "read"):
            kind = type(source).__name__
            raise FileError(f"cannot read a {kind}; expected a path, bytes or an open binary file")
        source.seek(0)
        data = source.read()
        if not isinstance(data, bytes):
            raise FileError("cannot read a file that is open as text; expected one opened with 'rb'")
        return data
    try:
        return Path(source).read_bytes()
    except (OSError, ValueError) as error:
        raise FileError(f"cannot read {os.fspath(source)}: {_reason(error)}") from error


@contextmanager
def writing(target: Target) -> Iterator[Path]:
    """A place to write to: when the block ends well its files are renamed, or copied, to where they belong.

    Args:
        target: a path, beside which the place is, or an open binary file, which is left open.

    Raises:
        FileError: the target cannot be written.
    """
    if not isinstance(target, str | os.PathLike):
        with _writing_to(target) as place:
            yield place
        return
    path = Path(target)
    try:
        if path.is_dir():
            raise OSError("it is a folder")
        if path.exists() and not path.is_file():  # renaming a file to it would take a device or a pipe away
            raise OSError("it is no file")
        folder = tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent)
    except (OSError, ValueError) as error:  # a path may hold what no file system has
        raise FileError(f"cannot write {path}: {_reason(error)}") from error
    with folder:
        place = Path(folder.name, path.name)
        try:
            yield place
            for file in sorted(Path(folder.name).iterdir(), reverse=True):  # the data before the model that names it
                os.replace(file, path.parent / file.name)
        except OSError as error:
            raise FileError(f"cannot write {path}: {_reason(error)}") from error


@contextmanager
def _writing_to(file: BinaryIO) -> Iterator[Path]:
    try:
        file.write(b"")
    except (AttributeError, TypeError, ValueError, OSError) as error:
        kind = type(file).__name__
        raise FileError(f"cannot write to a {kind}: {error}; expected a path or a file opened with 'wb'") from error
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, "model.onnx")
        yield place
        if len(list(Path(folder).iterdir())) > 1:
            raise FileError("a model of 2 GB or more lies in two files; expected a path")
        file.write(place.read_bytes())


def write(model: onnx.ModelProto, target: Path) -> None:
    """Write a model, from 2 GB on with its tensors in a second file, `<name>.data`, and check it in full.

    Raises:
        FileError: onnx finds fault with it.
    """
    save(model, target)
    try:
        onnx.checker.check_model(os.fspath(target), full_check=True)
    except ONNX_ERRORS as error:
        raise FileError(f"what torch made of this model is not a valid ONNX model: {first_line(error)}") from error


def save(model: onnx.ModelProto, target: Path) -> None:
    """`write` without the check."""
    if tensor_bytes(model) < EXTERNAL_DATA_FROM:
        target.write_bytes(model.SerializeToString())
    else:
        write_in_two(model, target)


def tensor_bytes(model: onnx.ModelProto) -> int:
    """How large it is, but for its nodes; protobuf itself counts bytes by writing them, and fails from 2 GB on."""
    return sum(len(tensor.raw_data) for tensor in model.graph.initializer)


def write_in_two(model: onnx.ModelProto, target: Path) -> None:
    """Write the graph to one file and its tensors beside it; the model is left as it is."""
    data = f"{target.name}.data"
    target.with_name(data).unlink(missing_ok=True)
    onnx.save_model(model, target, save_as_external_data=True, location=data, size_threshold=SMALLEST_EXTERNAL)
    onnx.load_external_data_for_model(model, os.fspath(target.parent))


def file_bytes(source: Source) -> int:
    """Size of a model with its external data."""
    if not isinstance(source, str | os.PathLike):
        return len(contents(source))
    path = Path(source)
    files = (path, path.with_name(f"{path.name}.data"))
    return sum(file.stat().st_size for file in files if file.exists())


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def first_line(error: Exception) -> str:
    """What an error of onnx or onnxruntime says, without the details below it."""
    return str(error).strip().partition("\n")[0]
