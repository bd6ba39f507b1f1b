"""Where a scale and a zero point come from: each source is a Module that answers `source(x)`.

`x` is the tensor about to be quantized, as `to_groups` returns it; the answer broadcasts against it.
"""

from typing import cast

import torch
from torch import Tensor, nn

from qat_core.affine import choose_qparams
from qat_core.spec import QuantSpec


class MinMax(nn.Module):
    """The range of the very tensor at hand, measured again each time: for weights, which move."""

    def __init__(self, spec: QuantSpec, axis: int) -> None:
        super().__init__()
        self.spec, self.axis = spec, axis

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        return choose_qparams(x.detach(), self.spec, self.axis)


class Fixed(nn.Module):
    """Constants: what every other source becomes in `convert`."""

    scale: Tensor
    zero_point: Tensor | None

    def __init__(self, scale: Tensor, zero_point: Tensor | None) -> None:
        super().__init__()
        self.register_buffer("scale", scale)
        self.register_buffer("zero_point", zero_point)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.scale, self.zero_point


@torch.no_grad()
def fix(source: nn.Module, x: Tensor) -> Fixed:
    """The constants that `source` answers for x now."""
    scale, zero_point = cast("tuple[Tensor, Tensor | None]", source(x))
    return Fixed(scale.clone(), zero_point)
