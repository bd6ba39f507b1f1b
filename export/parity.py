"""Does onnxruntime answer as PyTorch does? At every optimization level, since each rewrites the graph."""

import copy
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from export.runtime import LEVELS, run, session

TOLERANCE = 1e-5  # of the output's range: float32 sums in another order, never another code


class ParityError(AssertionError):
    """A file does not answer as the model it was made from."""


@dataclass(frozen=True)
class LevelParity:
    """One optimization level against the expected outputs.

    Attributes:
        level: "disable_all", "basic", "extended" or "all".
        max_abs_diff, mean_abs_diff: over all outputs, in the output's unit.
        code_mismatches: outputs further away than the tolerance.
        outputs: how many numbers were compared.
    """

    level: str
    max_abs_diff: float
    mean_abs_diff: float
    code_mismatches: int
    outputs: int


@dataclass(frozen=True)
class ParityReport:
    """All four levels.

    Attributes:
        ok: no output of any level is further away than the tolerance.
        tolerance: the largest distance allowed, in the output's unit.
        levels: one entry a level.
    """

    ok: bool
    tolerance: float
    levels: list[LevelParity]

    def raise_if_broken(self) -> None:
        """Raises ParityError that names the worst level when `ok` is False."""
        if self.ok:
            return
        worst = max(self.levels, key=lambda level: (level.code_mismatches, level.max_abs_diff))
        raise ParityError(
            f"onnxruntime differs at optimization level {worst.level}: {worst.code_mismatches} of {worst.outputs} "
            f"outputs are off by more than {self.tolerance:.3g}, the furthest by {worst.max_abs_diff:.3g}"
        )

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def check_parity(model: nn.Module, path: str | os.PathLike[str], inputs: Tensor | Sequence[Tensor]) -> ParityReport:
    """Compare onnxruntime on a file with PyTorch on the model it was made from.

    Args:
        model: prepared or converted.
        path: the exported file.
        inputs: one tensor, or one for each input of the model.

    Returns:
        The distances at each optimization level; see `ParityReport.raise_if_broken`.
    """
    tensors = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    return compare(path, [to_numpy(t) for t in tensors], torch_outputs(model, tensors))


def compare(
    model: str | os.PathLike[str] | bytes,
    inputs: Sequence[NDArray[np.generic]],
    expected: Sequence[NDArray[np.generic]],
    tolerance: float | None = None,
) -> ParityReport:
    """onnxruntime at every level against expected outputs; the default tolerance is 1e-5 of their range."""
    expected64 = [e.astype(np.float64) for e in expected]
    if tolerance is None:
        tolerance = TOLERANCE * max(output_range(e) for e in expected64)
    levels = []
    for level in LEVELS:
        answers = run(session(model, level), inputs)
        if [a.shape for a in answers] != [e.shape for e in expected]:
            raise ParityError(
                f"onnxruntime answers in shapes {[a.shape for a in answers]}, expected {[e.shape for e in expected]}"
            )
        pairs = zip(answers, expected64, strict=True)
        distance = np.concatenate([np.abs(a.astype(np.float64) - e).ravel() for a, e in pairs])
        distance = np.where(np.isnan(distance), np.inf, distance)
        levels.append(
            LevelParity(
                level=level,
                max_abs_diff=float(distance.max(initial=0.0)),
                mean_abs_diff=float(distance.mean()) if distance.size else 0.0,
                code_mismatches=int((distance > tolerance).sum()),
                outputs=distance.size,
            )
        )
    return ParityReport(all(level.code_mismatches == 0 for level in levels), tolerance, levels)


def output_range(values: NDArray[np.float64]) -> float:
    """max - min of the finite values and 0: a float's rounding error grows with the value, not with its spread."""
    values = values[np.isfinite(values)]
    return float(values.max(initial=0.0) - values.min(initial=0.0)) or 1.0


@torch.no_grad()
def torch_outputs(model: nn.Module, inputs: Sequence[Tensor]) -> list[NDArray[np.generic]]:
    """What the model answers in evaluation mode on the CPU; the model itself is left as it is."""
    answer = copy.deepcopy(model).cpu().eval()(*(t.cpu() for t in inputs))
    return [to_numpy(t) for t in ((answer,) if isinstance(answer, Tensor) else answer)]


def to_numpy(tensor: Tensor) -> NDArray[np.generic]:
    array: NDArray[np.generic] = tensor.detach().cpu().numpy()
    return array
