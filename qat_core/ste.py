"""The straight-through estimator: an honest forward pass and a useful lie in the backward pass.

Rounding is a staircase. Its derivative is 0 on every step and undefined at every edge, so the chain
rule multiplies each gradient by 0 and no weight below a `round()` ever learns:

    y = s * round(w / s)        dy/dw = s * 0 * (1/s) = 0     almost everywhere

The staircase follows the straight line y = w, though, never further away than half a step. The
straight-through estimator keeps the staircase in the forward pass and uses the slope of the line,
which is 1, in the backward pass:

    dL/dw := dL/dy              where the code was not clamped
    dL/dw := 0                  where it was: the curve is flat there, and the line is no longer near

The latent weight w then moves in float32, a little every step, until its code flips.

Source: Bengio et al. 2013, "Estimating or Propagating Gradients Through Stochastic Neurons for
Conditional Computation", section 4.
"""

from typing import Any

import torch
from torch import Tensor

from qat_core.affine import dequantize, quantize


class STEQuantize(torch.autograd.Function):
    """Quantize and dequantize in the forward pass, identity in the backward pass.

    `STEQuantize.apply(x, scale, zero_point, quant_min, quant_max)` returns a tensor of x's shape on the
    grid (code - zero_point) * scale. scale and zero_point broadcast against x and get no gradient;
    zero_point None means 0.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, scale: Tensor, zero_point: Tensor | None, quant_min: int, quant_max: int
    ) -> Tensor:
        codes = quantize(x, scale, zero_point, quant_min, quant_max)
        y = dequantize(codes, scale, zero_point)
        ctx.save_for_backward(_inside(x, scale, zero_point, quant_min, quant_max))
        return y

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor, None, None, None, None]:
        (inside,) = ctx.saved_tensors
        return grad_y * inside, None, None, None, None


def _inside(x: Tensor, scale: Tensor, zero_point: Tensor | None, quant_min: int, quant_max: int) -> Tensor:
    """Where rounding alone, without the clamp, already gives a code of the grid."""
    codes = torch.round(x / scale)
    if zero_point is not None:
        codes += zero_point
    return (codes >= quant_min) & (codes <= quant_max)
