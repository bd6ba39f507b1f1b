"""How far answers lie from what was expected."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

TOLERANCE = 1e-5  # of the output's range: float32 sums in another order, never another code


class ParityError(AssertionError):
    """A file does not answer as the model it was made from."""


class AxesError(ParityError):
    """It answers with other axes, and not only in other sizes."""


def default_tolerance(expected: NDArray[np.generic]) -> float:
    """1e-5 of an output's range; none where it is whole numbers or truth values."""
    if expected.dtype.kind != "f":
        return 0.0
    return TOLERANCE * output_range(expected.astype(np.float64))


def distances(
    answers: Sequence[NDArray[np.generic]], expected: Sequence[NDArray[np.generic]]
) -> list[NDArray[np.float64]]:
    """|answer - expected| of each output, infinite where one is NaN; equal infinities are no distance apart.

    Raises:
        ParityError: the shapes are not those expected.
    """
    check_shapes([a.shape for a in answers], [e.shape for e in expected])
    return [_distance(a, e) for a, e in zip(answers, expected, strict=True)]


def check_shapes(answered: Sequence[tuple[int, ...]], expected: Sequence[tuple[int, ...]]) -> None:
    """Raises ParityError where the shapes are not those expected, AxesError where there are more axes or fewer."""
    if list(answered) != list(expected):
        kind = ParityError if [len(shape) for shape in answered] == [len(shape) for shape in expected] else AxesError
        raise kind(f"onnxruntime answers in shapes {list(answered)}, expected {list(expected)}")


def _distance(answer: NDArray[np.generic], expected: NDArray[np.generic]) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore"):  # inf - inf
        distance = np.abs(answer.astype(np.float64) - expected.astype(np.float64))
    if expected.dtype.kind != "f":
        distance = np.maximum(distance, 1.0)  # float64 cannot tell large whole numbers apart
    return np.where(answer == expected, 0.0, np.where(np.isnan(distance), np.inf, distance))


def output_range(values: NDArray[np.float64]) -> float:
    """max - min of the finite values and 0: a float's rounding error grows with the value, not with its spread."""
    values = values[np.isfinite(values)]
    return float(values.max(initial=0.0) - values.min(initial=0.0)) or 1.0


def ulp(values: NDArray[np.generic]) -> float:
    """The distance to the next float32 at the largest magnitude among the values."""
    finite = np.abs(values[np.isfinite(values)])
    return float(np.spacing(np.float32(finite.max(initial=0.0)))) or 1.0
