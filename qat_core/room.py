"""Where the learned scales of weights begin."""

import functools
import math
from dataclasses import replace

import torch
from torch import Tensor

from qat_core.affine import Axis, mse_qparams, reduced_dims
from qat_core.source import FromTensor, Take, whole
from qat_core.spec import QuantSpec

NORMAL_NUMBERS = 1024


class WithRoom(FromTensor):
    """The scale of a weight with the smallest squared error, but not below that for a normal distribution of its size.

    Fresh weights are uniform and spread out in training.

    Args:
        spec: of the weight.
        axis: of the output channels.
        smallest: norm that zeros are taken for, as numbers that have not grown yet.
    """

    def __init__(self, spec: QuantSpec, axis: Axis, smallest: float) -> None:
        super().__init__(spec, axis)
        self.smallest = smallest

    def qparams(self, x: Tensor, take: Take = whole) -> tuple[Tensor, Tensor | None]:
        scale, zero_point = super().qparams(x)
        elements = max(x.numel() // max(scale.numel(), 1), 1)
        deviation = norm(x, reduced_dims(x, self.spec, self.axis), self.smallest) / math.sqrt(elements)
        return torch.maximum(scale, scale_of_normal(self.spec) * deviation), zero_point


def norm(x: Tensor, dims: tuple[int, ...], smallest: float) -> Tensor:
    """Euclidean norm over some dimensions, or all if none is named, `smallest` at least; without a gradient."""
    found: Tensor = torch.linalg.vector_norm(x.detach(), 2, dims or None, bool(dims))
    return found.clamp_min_(smallest)


@functools.cache
def scale_of_normal(spec: QuantSpec) -> float:
    """The scale with the smallest squared error for numbers of a normal distribution, in standard deviations."""
    numbers = torch.special.ndtri((torch.arange(NORMAL_NUMBERS, dtype=torch.float32) + 0.5) / NORMAL_NUMBERS)
    scale, _ = mse_qparams(numbers, replace(spec, granularity="per_tensor", power_of_two=False))
    return scale.item()
