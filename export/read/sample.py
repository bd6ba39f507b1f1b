"""What a receipt asks of a file, and what it should answer: numbers that any language can make again.

Input number k (0, 1, ... in row-major order) of a pattern with a seed, all of it in unsigned 32 bits:

    u = k + 0x9E3779B9 * seed
    u = (u ^ u >> 16) * 0x21F0AAAD
    u = (u ^ u >> 15) * 0x735A2D97
    u = u ^ u >> 15
    float      low + float32(high - low) * (u >> 8) / 2^24, in float64, then rounded to the input's type
    integer    low + u mod (high - low + 1)

Of an output's numbers n are stored: number i lies at a + hash(i) mod (b - a), where a and b are the whole parts of
i / n and (i + 1) / n of all, and hash(i) is u above with seed 0. Where the answer is exact in every bit, the SHA-256 of
all of its little-endian bytes stands there as well, its -0.0 taken for 0.0.

Source of the mixing: Chris Wellons, "Prospecting for Hash Functions" (2018), lowbias32.
"""

import base64
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.read.distance import check_shapes, distances

FEW_ROWS = 8
FEW_NUMBERS = 64  # of an input that is stored; more would weigh more than the weights
PATTERN_NUMBERS = 2**19  # of an input or an output that is asked for
GOLDEN = 0x9E3779B9
OLD_STEP, OLD_LEVELS = 40503, 65536  # of patterns without a seed


@dataclass(frozen=True)
class Sample:
    """Inputs and what is promised of the answers to them.

    Attributes:
        inputs: arrays, in the order of the graph's.
        outputs: of each output the numbers that are stored.
        places: where in the output they are, or every how many-th they are.
        digests: SHA-256 of each whole output; empty where it is not exact.
        shapes: of the answers; None where they are not stored.
    """

    inputs: list[NDArray[np.generic]]
    outputs: list[NDArray[np.generic]]
    places: Sequence[NDArray[np.int64] | int]
    digests: list[str]
    shapes: list[tuple[int, ...]] | None = None

    def distances(self, answers: Sequence[NDArray[np.generic]]) -> list[NDArray[np.float64]]:
        """|answer - promise| of each output, infinite where a hash says that something is wrong and not how much."""
        if self.shapes is not None:
            check_shapes([y.shape for y in answers], self.shapes)
        picked = [
            y.ravel()[::p] if isinstance(p, int) else y.ravel()[p] for y, p in zip(answers, self.places, strict=True)
        ]
        found = distances(picked, self.outputs)
        return [
            _everywhere(d, y, p, sha256) if sha256 else d
            for d, y, p, sha256 in zip(found, answers, self.places, self.digests, strict=True)
        ]


def few_rows(
    inputs: Sequence[NDArray[np.generic]], batch_axes: Sequence[int | None], first_row: int = 0
) -> list[dict[str, Any]]:
    """Inputs for JSON: small ones number by number, large ones as a pattern of their shape and range.

    A few rows from all over a batch, beginning at `first_row`, or one row where a row is large. Inputs without an axis
    for the batch are kept whole.
    """
    batch, row = _sizes(inputs, batch_axes)
    count = min(FEW_ROWS, batch, max(FEW_NUMBERS // row, 1))
    rows = (np.linspace(0, batch - 1, count).astype(np.int64) + first_row) % max(batch, 1)
    sampled = [x if axis is None else x.take(rows, axis) for x, axis in zip(inputs, batch_axes, strict=True)]
    return [
        pattern_like(x, x.shape, first_row + place) if x.size > FEW_NUMBERS else to_json(x)
        for place, x in enumerate(sampled)
    ]


def pattern_rows(
    inputs: Sequence[NDArray[np.generic]],
    outputs: Sequence[NDArray[np.generic]],
    batch_axes: Sequence[int | None],
    rows: int,
    seed: int,
    hold_integers: bool = False,
) -> list[dict[str, Any]]:
    """A pattern of so many rows like those of an example, or of fewer where rows are large.

    With `hold_integers`, whole numbers and truth values are all alike: masks, which cannot be anything.
    """
    batch, row = _sizes(inputs, batch_axes)
    row = max([row, *(y.size // max(batch, 1) for y in outputs)])
    count = min(rows, max(PATTERN_NUMBERS // row, 1))
    entries = []
    for place, (x, axis) in enumerate(zip(inputs, batch_axes, strict=True)):
        shape = [count if dim == axis else size for dim, size in enumerate(x.shape)]
        held = x.ravel()[:1] if hold_integers and x.dtype.kind != "f" else x
        entries.append(pattern_like(held, shape, seed + place))
    return entries


def _sizes(inputs: Sequence[NDArray[np.generic]], batch_axes: Sequence[int | None]) -> tuple[int, int]:
    """Rows, and numbers of the largest row."""
    batched = [(x, axis) for x, axis in zip(inputs, batch_axes, strict=True) if axis is not None]
    batch = max((x.shape[axis] for x, axis in batched), default=1)
    return batch, max([1, *(x.size // max(batch, 1) for x, _ in batched)])


def numbers(entries: Sequence[Mapping[str, Any]]) -> list[NDArray[np.generic]]:
    """The inputs that entries stand for."""
    return [_pattern(entry) if "low" in entry else from_json(entry) for entry in entries]


def promise(output: NDArray[np.generic], exact: bool, most: int) -> dict[str, Any]:
    """An output for JSON: `most` of its numbers, and a hash of all if it is exact."""
    stored = to_json(output.ravel()[spread(output.size, min(most, output.size))])
    return stored | {"answer": list(output.shape)} | ({"sha256": digest(output)} if exact else {})


def sample_of(inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]) -> Sample:
    """Undo `promise`."""
    shapes = [tuple(int(size) for size in entry["answer"]) for entry in outputs]
    stored = [from_json(entry) for entry in outputs]
    return Sample(
        numbers(inputs),
        stored,
        [spread(math.prod(shape), len(some)) for shape, some in zip(shapes, stored, strict=True)],
        [str(entry.get("sha256", "")) for entry in outputs],
        shapes,
    )


def digest(output: NDArray[np.generic]) -> str:
    """SHA-256 of an output's numbers."""
    if output.dtype.kind == "f":
        output = np.where(output == 0, np.zeros_like(output), output)  # -0.0 becomes 0.0
    return hashlib.sha256(_bytes(output)).hexdigest()


def _everywhere(
    distance: NDArray[np.float64], answer: NDArray[np.generic], places: NDArray[np.int64] | int, sha256: str
) -> NDArray[np.float64]:
    """Of an output that should be exact: 0, or the distances at its places and something unknown beside them."""
    found = np.zeros(answer.size)
    if digest(answer) != sha256:
        found[places] = distance
        found[np.setdiff1d(np.arange(answer.size), places)[:1]] = np.inf
    return found


def spread(size: int, count: int) -> NDArray[np.int64]:
    """Which of so many numbers are stored: one of each part, in `count` parts."""
    if not 0 <= count <= size:
        raise ValueError(f"{count} of {size} numbers; expected at most as many")
    ends = np.arange(count + 1, dtype=np.int64) * size // max(count, 1)
    return np.asarray(ends[:-1] + scatter(count, 0) % np.maximum(np.diff(ends), 1))


def scatter(count: int, seed: int) -> NDArray[np.int64]:
    """`count` whole numbers below 2^32."""
    u = np.arange(count, dtype=np.uint32) + np.uint32(GOLDEN * seed % 2**32)
    u = (u ^ u >> np.uint32(16)) * np.uint32(0x21F0AAAD)
    u = (u ^ u >> np.uint32(15)) * np.uint32(0x735A2D97)
    return (u ^ u >> np.uint32(15)).astype(np.int64)


def pattern_like(array: NDArray[np.generic], shape: Sequence[int], seed: int) -> dict[str, Any]:
    """A pattern of another shape, with the range of the finite numbers of an array."""
    finite = array[np.isfinite(array)] if array.dtype.kind == "f" else array
    ends = (finite.min(), finite.max()) if finite.size else (0, 0)
    low, high = (float(end) if array.dtype.kind == "f" else int(end) for end in ends)
    return {"dtype": array.dtype.name, "shape": list(shape), "low": low, "high": high, "seed": seed}


def _pattern(entry: Mapping[str, Any]) -> NDArray[np.generic]:
    shape, low, high, dtype = entry["shape"], entry["low"], entry["high"], np.dtype(entry["dtype"])
    count = math.prod(shape)
    if "seed" not in entry:
        return _old_pattern(count, low, high, dtype).reshape(shape)
    u = scatter(count, int(entry["seed"]))
    if dtype.kind == "f":
        values = low + float(np.float32(high - low)) * (u >> 8) / 2**24
    else:
        values = low + u % (int(high) - int(low) + 1)
    return np.asarray(values.astype(dtype).reshape(shape))


def _old_pattern(count: int, low: float, high: float, dtype: np.dtype[Any]) -> NDArray[np.generic]:
    """Numbers spread evenly from low to high, as receipts of format 4 mean them."""
    steps = np.arange(count, dtype=np.int64) * OLD_STEP % OLD_LEVELS
    values = (
        low + (high - low) * (steps / OLD_LEVELS) if dtype.kind == "f" else low + steps % (int(high) - int(low) + 1)
    )
    return np.asarray(values.astype(dtype))


def to_json(array: NDArray[np.generic]) -> dict[str, Any]:
    """Little-endian bytes in base64."""
    return {
        "dtype": array.dtype.name,
        "shape": list(array.shape),
        "base64": base64.b64encode(_bytes(array)).decode(),
    }


def from_json(entry: Mapping[str, Any]) -> NDArray[np.generic]:
    data = base64.b64decode(entry["base64"], validate=True)
    dtype = np.dtype(entry["dtype"])
    array: NDArray[np.generic] = np.frombuffer(data, dtype.newbyteorder("<")).astype(dtype).reshape(entry["shape"])
    return array


def _bytes(array: NDArray[np.generic]) -> bytes:
    return array.astype(array.dtype.newbyteorder("<")).tobytes()
