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

import math
from typing import Any

import torch
from torch import Tensor

from qat_core.affine import dequantize_, round_to_codes
from qat_core.processes import in_transform


class STEQuantize(torch.autograd.Function):
    """Quantize and dequantize in the forward pass, identity in the backward pass.

    `STEQuantize.apply(x, scale, zero_point, quant_min, quant_max, shift=0.0)` returns a tensor of x's shape on the
    grid (code - zero_point + shift) * scale. scale and zero_point broadcast against x and get no gradient; zero_point
    None means 0.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        scale: Tensor,
        zero_point: Tensor | None,
        quant_min: int,
        quant_max: int,
        shift: float = 0.0,
    ) -> Tensor:
        unclamped = round_to_codes(x, scale, zero_point, shift)
        ctx.save_for_backward(unclamped)
        ctx.quant_min, ctx.quant_max = quant_min, quant_max
        return dequantize_(unclamped.clamp(quant_min, quant_max), scale, zero_point, shift)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        (unclamped,) = ctx.saved_tensors
        return where_not_clamped(grad_y, unclamped, ctx.quant_min, ctx.quant_max), None, None, None, None, None


def straight_through(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor | None,
    quant_min: float,
    quant_max: float,
    shift: float = 0.0,
    scale_factor: float = 0.0,
) -> Tensor:
    """The same numbers and gradients in operators that torch.func can transform: more of them, so only there.

    Args:
        scale_factor: what the gradient of a learned scale is multiplied by; 0 for a scale without one.
    """
    values, unit = x.detach(), scale.detach()
    codes = round_to_codes(values, unit, zero_point, shift)
    inside = (codes >= quant_min) & (codes <= quant_max)
    y = dequantize_(codes.clamp(quant_min, quant_max), unit, zero_point, shift)
    lie = torch.where(inside, x - values, 0)  # zeros, with the slope of x
    if scale_factor:
        slope = (y - torch.where(inside, values, 0)) / unit * scale_factor
        lie = lie + slope * (scale - unit)
    return y + lie


def ste_round(x: Tensor, scale: Tensor, shift: float = 0.0) -> Tensor:
    """STEQuantize where the scale is known to cover x: nothing is clamped, so the backward pass is the identity.

    The same numbers at half the cost: the gradient of clone() is the identity already, in C++, and rounding its values
    in place through a detached alias is something that autograd need not hear of.
    """
    if in_transform():
        return straight_through(x, scale, None, -math.inf, math.inf, shift)
    y = x.clone()
    values = y.detach()
    dequantize_(round_to_codes(values, scale, None, shift, out=values), scale, None, shift)
    return y


def ste_round_by(x: Tensor, factor: Tensor, scale: Tensor) -> Tensor:
    """`ste_round` for dynamic activations: round(x * factor) * scale, both as `dynamic_qparams` answers."""
    if in_transform():
        return (x * factor).round().detach() * scale + (x - x.detach())
    y = x.clone()
    y.detach().mul_(factor).round_().mul_(scale)
    return y


def where_not_clamped(grad: Tensor, unclamped: Tensor, quant_min: int, quant_max: int) -> Tensor:
    """grad where the code lies in the range, 0 elsewhere; one kernel, since that is what hardtanh's gradient is."""
    return torch.ops.aten.hardtanh_backward.default(grad, unclamped, quant_min - 0.5, quant_max + 0.5)  # type: ignore[no-any-return]
