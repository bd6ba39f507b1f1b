"""What a difference means to whoever reads the answers row by row: embeddings, classes. Needs no torch."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def touched(distance: NDArray[np.float64], tolerance: float) -> float:
    """The share of rows with a distance above the tolerance."""
    return float((_in_rows(distance) > tolerance).any(1).mean()) if distance.size else 0.0


def cosine(answer: NDArray[Any], expected: NDArray[Any]) -> float:
    """The smallest between a row of numbers and the one expected; 1 where no row is finite and other than zero."""
    if expected.dtype.kind != "f" or not expected.size:
        return 1.0
    a, e = (_in_rows(values.astype(np.float64)) for values in (answer, expected))
    with np.errstate(invalid="ignore", over="ignore"):
        norms = np.linalg.norm(a, axis=1) * np.linalg.norm(e, axis=1)
        found = (a * e).sum(1)[norms > 0] / norms[norms > 0]
    return float(np.clip(found[np.isfinite(found)], -1, 1).min(initial=1.0))


def same_class(answer: NDArray[Any], expected: NDArray[Any]) -> float:
    """The share of places, along all axes but the last, whose largest number is the one expected."""
    if expected.ndim < 2 or not expected.size:
        return 1.0
    return float((answer.argmax(-1) == expected.argmax(-1)).mean())


def _in_rows(values: NDArray[Any]) -> NDArray[Any]:
    """(rows, others): a single row where there is but one axis."""
    return values.reshape(len(values) if values.ndim > 1 else 1, -1)
