"""FakeQuantize: float numbers that can only take the values an integer file can hold."""

from typing import cast

import torch
from torch import Tensor, nn

from qat_core.affine import quantize, to_groups
from qat_core.observer import Fixed, MinMax, fix
from qat_core.spec import QuantSpec
from qat_core.ste import STEQuantize


class FakeQuantize(nn.Module):
    """A spec, a source of scales and the straight-through estimator.

    Args:
        spec: bits, granularity and the rest.
        axis: the dimension of the output channels.

    Shape: any tensor in, the same shape out, every value on the grid (code - zero_point) * scale.
    """

    def __init__(self, spec: QuantSpec, axis: int = 0) -> None:
        super().__init__()
        self.spec, self.axis = spec, axis
        self.source: nn.Module = MinMax(spec, axis)

    def forward(self, x: Tensor) -> Tensor:
        groups = to_groups(x, self.spec)
        scale, zero_point = self.source(groups)
        y = STEQuantize.apply(groups, scale, zero_point, self.spec.quant_min, self.spec.quant_max)  # type: ignore[no-untyped-call]
        return cast(Tensor, y).reshape(x.shape)

    @torch.no_grad()
    def codes(self, x: Tensor) -> Tensor:
        """The codes of the forward pass: int8 when the spec is symmetric, else uint8, of x's shape."""
        groups = to_groups(x, self.spec)
        scale, zero_point = self.source(groups)
        codes = quantize(groups, scale, zero_point, self.spec.quant_min, self.spec.quant_max)
        return codes.reshape(x.shape).to(torch.int8 if self.spec.symmetric else torch.uint8)

    def freeze(self, x: Tensor) -> None:
        """Keep the scale and zero point that hold for x now."""
        self.source = fix(self.source, to_groups(x, self.spec))

    @property
    def is_frozen(self) -> bool:
        return isinstance(self.source, Fixed)

    def extra_repr(self) -> str:
        return str(self.spec)
