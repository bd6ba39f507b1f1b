"""onnxruntime at every optimization level against expected numbers. Needs no torch."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from export.read.files import Source
from export.read.kernels import Kernels
from export.read.proof import Proof
from export.read.rows import cosine, same_class, touched
from export.read.runtime import LEVELS, Setup, run, session

TOLERANCE = 1e-5  # of the output's range: float32 sums in another order, never another code
Outcome = Literal["exact", "rounding", "broken"]
PUBLISHED = {"beyond_tolerance": "code_mismatches", "divergence": "parting"}  # keys of --json, which scripts read


class ParityError(AssertionError):
    """A file does not answer as the model it was made from."""


@dataclass(frozen=True)
class LevelParity:
    """One optimization level against the expected outputs.

    Attributes:
        level: "disable_all", "basic", "extended" or "all".
        max_abs_diff, mean_abs_diff: over all outputs, in the output's unit.
        beyond_tolerance: outputs further away than that.
        outputs: how many numbers were compared.
        max_ulps: max_abs_diff in units of the last place of the largest output.
        change: the largest change in units of the spread of its output.
        rows: the share of rows, along the first axis, with an output further away than the tolerance.
        cosine: the smallest between a row and the one expected.
        same_class: the share of rows, along all axes but the last, whose largest number is in the same place.
    """

    level: str
    max_abs_diff: float
    mean_abs_diff: float
    beyond_tolerance: int
    outputs: int
    max_ulps: float = 0.0
    change: float = 0.0
    rows: float = 0.0
    cosine: float = 1.0
    same_class: float = 1.0

    @property
    def code_mismatches(self) -> int:
        """`beyond_tolerance`, as it was called when it was published."""
        return self.beyond_tolerance

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {PUBLISHED.get(name, name): value for name, value in asdict(self).items()}


@dataclass(frozen=True)
class Divergence:
    """The first tensor, in the order of the forward pass, at which onnxruntime and PyTorch part.

    Attributes:
        level: the optimization level it was seen at.
        tensor: its name in the file.
        differing, elements: how many of its numbers, or codes, differ.
        tie_ulps: codes only: how far the differing numbers lie from a rounding tie, the furthest of them, in units of
            the last place of the tensor's largest number.
        explained: every output that differs follows from codes that lie on a tie.
    """

    level: str
    tensor: str
    differing: int
    elements: int
    tie_ulps: float | None
    explained: bool

    def __str__(self) -> str:
        distance = "" if self.tie_ulps is None else f", at most {self.tie_ulps:.2g} ulps from a rounding tie"
        what = "numbers" if self.tie_ulps is None else "codes"
        return f"they part at {self.tensor!r}: {self.differing} of {self.elements} {what} differ{distance}"


Parting = Divergence  # its name when it was published


@dataclass(frozen=True)
class ParityReport:
    """All four levels.

    Attributes:
        tolerances: the largest distance allowed, for each output in its unit.
        levels: one entry a level.
        divergence: where the answers part, if outputs are further away than the tolerance.
        proof: what can be said for all inputs.
        kernels: the quick kernels that were expected, and whether onnxruntime runs them; None where none was promised.
        axes: input -> its sizes: a number where the file takes no other, a name where it takes any.
        in_float: what is quantized in the model and lies in the file in float: layers that are not called, and weights
            that something else than their layer reads.
    """

    tolerances: list[float]
    levels: list[LevelParity]
    divergence: Divergence | None = None
    proof: Proof | None = None
    kernels: Kernels | None = None
    axes: Mapping[str, tuple[int | str, ...]] = field(default_factory=dict)
    in_float: Sequence[str] = ()

    @property
    def outcome(self) -> Outcome:
        """Is it the same: "exact", "rounding" or "broken"?

        Exact is bit for bit. Rounding is up to sums in another order, and where these decide a rounding tie, up to the
        code that follows, which is counted in the levels and explained by the divergence.
        """
        if all(level.max_abs_diff == 0 for level in self.levels):
            return "exact"
        within = not any(level.beyond_tolerance for level in self.levels)
        return "rounding" if within or (self.divergence is not None and self.divergence.explained) else "broken"

    @property
    def ok(self) -> bool:
        """The outcome is not "broken"."""
        return self.outcome != "broken"

    @property
    def parting(self) -> Divergence | None:
        """`divergence`, as it was called when it was published."""
        return self.divergence

    @property
    def tolerance(self) -> float:
        """That of the output with the widest range."""
        return max(self.tolerances)

    @property
    def worst(self) -> LevelParity:
        return max(self.levels, key=lambda level: (level.beyond_tolerance, level.max_abs_diff))

    def raise_if_broken(self) -> None:
        """Raises ParityError that names the worst level when `ok` is False."""
        if self.ok:
            return
        worst = self.worst
        where = f"; {self.divergence}" if self.divergence else ""
        raise ParityError(
            f"onnxruntime differs at optimization level {worst.level}: {worst.beyond_tolerance} of {worst.outputs} "
            f"outputs are off by more than {self.tolerance:.3g}, the furthest by {worst.max_abs_diff:.3g}{where}"
        )

    @property
    def verdict(self) -> str:
        """The outcome, and the figure behind it."""
        worst = self.worst
        if self.outcome == "exact":
            return f"exact: {worst.outputs} outputs are equal bit for bit at every level"
        if self.outcome == "broken":
            return f"broken: {worst.beyond_tolerance} of {worst.outputs} outputs differ at level {worst.level}"
        if worst.beyond_tolerance:
            return (
                f"equal up to rounding ties: {worst.beyond_tolerance} of {worst.outputs} outputs differ, in "
                f"{worst.rows:.0%} of the rows, by {worst.change:.2g} of their spread at most; smallest cosine "
                f"{worst.cosine:.4g}, same class in {worst.same_class:.1%}"
            )
        ulps = f"{max(level.max_ulps for level in self.levels):.2g}"
        return f"equal up to float rounding: {ulps} {'ulp' if ulps == '1' else 'ulps'} at most"

    @property
    def evidence(self) -> str:
        """Where the answers part, what is proven, which kernels run and what the file takes, as far as it is known."""
        left = f"in float, since their layers are not called or do not alone read them: {', '.join(self.in_float)}"
        sizes = ", ".join(f"{name} [{', '.join(map(str, axes))}]" for name, axes in self.axes.items())
        facts = (self.divergence, self.proof, self.kernels, self.in_float and left, sizes and f"takes {sizes}")
        return "; ".join(str(fact) for fact in facts if fact)

    def __str__(self) -> str:
        """One sentence."""
        return "; ".join(filter(None, (self.verdict, self.evidence)))

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        found = {PUBLISHED.get(name, name): value for name, value in asdict(self).items()}
        return {"ok": self.ok, "outcome": self.outcome, **found, "levels": [level.as_dict() for level in self.levels]}


def compare(
    model: Source | onnx.ModelProto,
    inputs: Sequence[NDArray[np.generic]],
    expected: Sequence[NDArray[np.generic]],
    tolerances: Sequence[float] | None = None,
    setup: Setup | None = None,
    every: Sequence[int] | None = None,
) -> list[LevelParity]:
    """onnxruntime at every level against expected outputs; the default tolerance of each is 1e-5 of its range.

    With `every`, only every so many-th number of each output is expected.
    """
    if tolerances is None:
        tolerances = [default_tolerance(output) for output in expected]
    levels = []
    for level in LEVELS:
        answers = run(session(model, level, setup), inputs)
        if every is not None:
            answers = [answer.ravel()[::step] for answer, step in zip(answers, every, strict=True)]
        levels.append(_level(level, answers, expected, tolerances))
    return levels


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
    if [a.shape for a in answers] != [e.shape for e in expected]:
        raise ParityError(
            f"onnxruntime answers in shapes {[a.shape for a in answers]}, expected {[e.shape for e in expected]}"
        )
    return [_distance(a, e) for a, e in zip(answers, expected, strict=True)]


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


def _level(
    level: str,
    answers: Sequence[NDArray[np.generic]],
    expected: Sequence[NDArray[np.generic]],
    tolerances: Sequence[float],
) -> LevelParity:
    off = distances(answers, expected)
    distance = np.concatenate([d.ravel() for d in off])
    return LevelParity(
        level=level,
        max_abs_diff=float(distance.max(initial=0.0)),
        mean_abs_diff=float(distance.mean()) if distance.size else 0.0,
        beyond_tolerance=sum(int((d > tolerance).sum()) for d, tolerance in zip(off, tolerances, strict=True)),
        outputs=distance.size,
        max_ulps=max(float(d.max(initial=0.0)) / ulp(e) for d, e in zip(off, expected, strict=True)),
        change=max(
            float(d.max(initial=0.0)) / output_range(e.astype(np.float64)) for d, e in zip(off, expected, strict=True)
        ),
        rows=max((touched(d, t) for d, t in zip(off, tolerances, strict=True)), default=0.0),
        cosine=min((cosine(a, e) for a, e in zip(answers, expected, strict=True)), default=1.0),
        same_class=min((same_class(a, e) for a, e in zip(answers, expected, strict=True)), default=1.0),
    )
