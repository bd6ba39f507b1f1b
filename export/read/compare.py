"""onnxruntime at every optimization level against expected numbers. Needs no torch."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from export.read.distance import ParityError, default_tolerance, distances, output_range, ulp
from export.read.files import Source
from export.read.kernels import Kernels
from export.read.proof import Proof
from export.read.rows import cosine, same_class, touched
from export.read.runtime import LEVELS, Setup, run, session
from export.read.sample import Sample
from export.read.speed import Choice, Speed, summary

Outcome = Literal["exact", "rounding", "broken"]
PUBLISHED = {"beyond_tolerance": "code_mismatches", "divergence": "parting"}  # keys of --json, which scripts read


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


@dataclass(frozen=True)
class Ties:
    """How much rounding ties may move where nobody can look inside: another machine decides others.

    Attributes:
        numbers: how many of the compared outputs may be further away than the tolerance.
        distance: and how far at most, in the unit of the widest output.
    """

    numbers: int = 0
    distance: float = 0.0


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
        ties: what may be further away than the tolerance, without a divergence that explains it.
        unmet: what the file needs and this machine has not, a sentence each.
        rewritten: what was changed since the receipt was written, by a tool that kept the answers.
        speed: beside float32, where it was measured.
        choices: with flavor "auto" the form of each layer, and why.
    """

    tolerances: list[float]
    levels: list[LevelParity]
    divergence: Divergence | None = None
    proof: Proof | None = None
    kernels: Kernels | None = None
    axes: Mapping[str, tuple[int | str, ...]] = field(default_factory=dict)
    ties: Ties = Ties()
    unmet: list[str] = field(default_factory=list)
    rewritten: str = ""
    in_float: Sequence[str] = ()
    speed: Speed | None = None
    choices: Sequence[Choice] = ()

    @property
    def outcome(self) -> Outcome:
        """Is it the same: "exact", "rounding" or "broken"?

        Exact is bit for bit. Rounding is up to sums in another order, and where these decide a rounding tie, up to the
        code that follows, which is counted in the levels and explained by the divergence.
        """
        if all(level.max_abs_diff == 0 for level in self.levels):
            return "exact"
        within = all(
            not level.beyond_tolerance
            or (level.beyond_tolerance <= self.ties.numbers and level.max_abs_diff <= self.ties.distance)
            for level in self.levels
        )
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
            numbers = "" if np.isfinite(worst.max_abs_diff) else ", some of them NaN or infinite"
            return f"broken: {worst.beyond_tolerance} of {worst.outputs} outputs differ at level {worst.level}{numbers}"
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
        """Where the answers part, what is proven, which kernels run, how fast, what is not met, what the file takes."""
        left = f"in float, since their layers are not called or do not alone read them: {', '.join(self.in_float)}"
        sizes = ", ".join(f"{name} [{', '.join(map(str, axes))}]" for name, axes in self.axes.items())
        known = (self.divergence, self.proof, self.kernels, summary(self.choices), self.speed, *self.unmet)
        return "; ".join(str(fact) for fact in (*known, self.in_float and left, sizes and f"takes {sizes}") if fact)

    @property
    def holds(self) -> bool:
        """The answers are right, with the kernels that were promised and all that the file needs."""
        return self.ok and not self.unmet and not (self.kernels and self.kernels.missing)

    def __str__(self) -> str:
        """One sentence."""
        return "; ".join(filter(None, (self.verdict, self.evidence)))

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        found = {PUBLISHED.get(name, name): value for name, value in asdict(self).items()}
        return {
            "ok": self.ok,
            "outcome": self.outcome,
            "holds": self.holds,
            **found,
            "levels": [level.as_dict() for level in self.levels],
        }


def compare(
    model: Source | onnx.ModelProto,
    inputs: Sequence[NDArray[np.generic]],
    expected: Sequence[NDArray[np.generic]],
    tolerances: Sequence[float] | None = None,
    setup: Setup | None = None,
) -> list[LevelParity]:
    """onnxruntime at every level against expected outputs; the default tolerance of each is 1e-5 of its range."""
    if tolerances is None:
        tolerances = [default_tolerance(output) for output in expected]
    levels = []
    for level in LEVELS:
        answers = run(session(model, level, setup), inputs)
        found = _level(level, distances(answers, expected), expected, tolerances)
        pairs = list(zip(answers, expected, strict=True))
        near, alike = min(cosine(*pair) for pair in pairs), min(same_class(*pair) for pair in pairs)
        levels.append(replace(found, cosine=near, same_class=alike))
    return levels


def compare_samples(
    model: Source, samples: Sequence[Sample], tolerances: Sequence[float], setup: Setup | None = None
) -> list[LevelParity]:
    """onnxruntime at every level against what samples promise, all of them together."""
    expected = [
        np.concatenate([y.ravel() for y in outputs]) for outputs in zip(*(s.outputs for s in samples), strict=True)
    ]
    levels = []
    for level in LEVELS:
        runtime = session(model, level, setup)
        found = [sample.distances(run(runtime, sample.inputs, shrink=True)) for sample in samples]
        off = [np.concatenate([d.ravel() for d in parts]) for parts in zip(*found, strict=True)]
        levels.append(_level(level, off, expected, tolerances))
    return levels


def _level(
    level: str,
    off: Sequence[NDArray[np.float64]],
    expected: Sequence[NDArray[np.generic]],
    tolerances: Sequence[float],
) -> LevelParity:
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
    )
