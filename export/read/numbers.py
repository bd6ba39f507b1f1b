"""Numbers for the inputs of a file, by their names: typed on a command line, or out of an .npz file."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from export.read.runtime import InputsError

TYPES = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(bool)": np.bool_,
}


def from_npz(path: Path) -> dict[str, NDArray[np.generic]]:
    """The arrays of a file that numpy.savez wrote.

    Raises:
        InputsError: it cannot be read.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    except (OSError, ValueError, AttributeError, TypeError) as error:  # an .npy file is an array, not a context
        raise InputsError(f"cannot read {path}: {error}; expected what numpy.savez wrote") from error


def arranged(
    taken: Sequence[ort.NodeArg], typed: Mapping[str, Sequence[float]], arrays: Mapping[str, NDArray[np.generic]]
) -> list[NDArray[np.generic]]:
    """All inputs of a file, in its order.

    Args:
        taken: what the file takes.
        typed: name -> numbers, which fill the last axis of any size; other such axes are 1.
        arrays: name -> an array as it is.

    Raises:
        InputsError: one is missing, unknown, or does not fit.
    """
    names = [node.name for node in taken]
    given = {**typed, **arrays}
    unknown, missing = [n for n in given if n not in names], [n for n in names if n not in given]
    if unknown or missing:
        what = f"there is no input {unknown[0]!r}" if unknown else f"the input {missing[0]!r} is missing"
        raise InputsError(f"{what}; expected {', '.join(f'{node.name} {node.type} {node.shape}' for node in taken)}")
    return [arrays[n.name] if n.name in arrays else _filled(n, typed[n.name]) for n in taken]


def _filled(node: ort.NodeArg, numbers: Sequence[float]) -> NDArray[np.generic]:
    if node.type not in TYPES:
        raise InputsError(f"the input {node.name!r} is {node.type}; expected {', '.join(TYPES)}")
    free = [axis for axis, size in enumerate(node.shape) if not isinstance(size, int)]
    shape = [size if isinstance(size, int) else 1 for size in node.shape]
    row = math.prod(shape)
    if free and row and len(numbers) % row == 0:
        shape[free[-1]] = len(numbers) // row
    if math.prod(shape) != len(numbers):
        expected = f"a multiple of {row}" if free else str(row)
        raise InputsError(f"--{node.name} has {len(numbers)} numbers; expected {expected}, of shape {node.shape}")
    array = np.array(numbers)
    typed: NDArray[np.generic] = array.astype(TYPES[node.type])
    if typed.dtype.kind != "f" and not np.array_equal(typed, array):
        raise InputsError(f"--{node.name} has {numbers}; expected {np.dtype(TYPES[node.type]).name}")
    return typed.reshape(shape)
