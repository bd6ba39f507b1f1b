"""The learned step size: the scale is trained with the weights, by the gradient of the same lie.

With v = x / s and the straight-through estimator for round(), the output y = s * round(clamp(v)) has the slope

    dy/ds = round(v) - v        where the code was not clamped: the rounding error itself
    dy/ds = code of the limit   where it was: the level moves with the scale

so a scale shrinks when its rounding errors hurt and grows when its clamped values do. It is summed over all the
elements that share the scale and multiplied by 1 / sqrt(N * quant_max), which brings it to the size of a weight's
gradient.

The parameter is log2(s): the scale stays positive, and an optimizer's step is a fraction of the scale whatever its
size.

Source: Esser et al. 2020, "Learned Step Size Quantization", equations 3 and 5 and section 2.2. Logarithm: Jain et al.
2020, "Trained Quantization Thresholds for Accurate and Efficient Fixed-Point Inference", section 4.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from qat_core.affine import dequantize_, round_to_codes
from qat_core.observer import Source, StatefulSource
from qat_core.ste import where_not_clamped


class LSQuantize(torch.autograd.Function):
    """`STEQuantize` with a gradient for the scale; the same arguments, and quant_min is never None."""

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
        y = dequantize_(unclamped.clamp(quant_min, quant_max), scale, zero_point, shift)
        ctx.save_for_backward(x, y, scale, unclamped)
        ctx.quant_min, ctx.quant_max = quant_min, quant_max
        return y

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor, Tensor, None, None, None, None]:
        x, y, scale, unclamped = ctx.saved_tensors
        grad_x = where_not_clamped(grad_y, unclamped, ctx.quant_min, ctx.quant_max)
        slopes = (grad_y * y).addcmul_(grad_x, x, value=-1)  # dL/dy * (y - x), or dL/dy * y where clamped
        factor = gradient_factor(x.numel() // scale.numel(), ctx.quant_max)
        grad_scale = slopes.sum_to_size(scale.shape).div_(scale).mul_(factor)
        return grad_x, grad_scale, None, None, None, None


def gradient_factor(elements: int, quant_max: int) -> float:
    """1 / sqrt(N * quant_max), N elements to a scale: Esser et al. 2020, section 2.2."""
    return 1 / math.sqrt(elements * max(quant_max, 1))


class LearnedScale(StatefulSource):
    """A trainable scale, and a zero point that stays where it began.

    Both begin as what `initial` answers for the first tensor, or for all batches of a calibration.

    Args:
        initial: a source of scales, as in `observer.py`.
        shape: of the scale; broadcasts against the grouped tensor.
        symmetric: without a zero point.
        power_of_two: the scale in use is the power of two above the learned one, straight-through.
    """

    zero_point: Tensor | None

    def __init__(self, initial: Source, shape: torch.Size, symmetric: bool, power_of_two: bool) -> None:
        super().__init__()
        self.initial, self.power_of_two, self.started = initial, power_of_two, False
        self.shape = shape
        self.log2_scale = nn.Parameter(torch.full(shape or (1,), torch.nan))  # FSDP shards nothing without a dimension
        self.register_buffer("zero_point", None if symmetric else torch.zeros(shape))

    def qparams(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        if not self.started or self.initial.calibrating:
            self.start(x)
        log2_scale: Tensor = self.log2_scale
        if self.power_of_two:
            log2_scale = log2_scale + (log2_scale.ceil() - log2_scale).detach()
        scale = log2_scale.exp2()
        return scale if self.shape else scale.squeeze(), self.zero_point

    @torch.no_grad()
    def start(self, x: Tensor) -> None:
        """Begin from what `initial` answers for x."""
        scale, zero_point = self.initial.qparams(x)
        self.log2_scale.copy_(scale.log2())
        if self.zero_point is not None and zero_point is not None:
            self.zero_point.copy_(zero_point)
        self.started = True

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        if f"{prefix}log2_scale" in state_dict:  # of earlier versions, where one scale had no dimension
            state_dict[f"{prefix}log2_scale"] = state_dict[f"{prefix}log2_scale"].reshape(self.log2_scale.shape)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def restart(self) -> None:
        self.started = False

    def resume(self) -> None:
        self.started = bool(torch.isfinite(self.log2_scale).all())
