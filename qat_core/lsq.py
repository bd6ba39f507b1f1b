"""The learned step size: the scale is trained with the weights, by the gradient of the same lie.

With v = x / s and the straight-through estimator for round(), the output y = s * round(clamp(v)) has the slope

    dy/ds = round(v) - v        where the code was not clamped: the rounding error itself
    dy/ds = code of the limit   where it was: the level moves with the scale

so a scale shrinks when its rounding errors hurt and grows when its clamped values do. It is summed over all the
elements that share the scale and multiplied by 1 / sqrt(N * quant_max), which brings it to the size of a weight's
gradient.

The parameter is log2(s): the scale stays positive, and an optimizer's step is a fraction of the scale whatever its
size. Where the scale began with data, it is log2 of how far it has moved since: weight decay pulls it back to there.

Source: Esser et al. 2020, "Learned Step Size Quantization", equations 3 and 5 and section 2.2. Logarithm: Jain et al.
2020, "Trained Quantization Thresholds for Accurate and Efficient Fixed-Point Inference", section 4.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from qat_core.affine import SMALLEST_SCALE, dequantize_, round_to_codes
from qat_core.processes import only_looks, without_numbers
from qat_core.source import Source, StatefulSource
from qat_core.ste import where_not_clamped

ZEROS, NOTHING, NUMBERS = -1.0, 0.0, 1.0


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
        grad_scale = slopes.sum_to_size(scale.shape).div_(scale).mul_(factor).nan_to_num_(0.0, torch.inf, -torch.inf)
        return grad_x, grad_scale, None, None, None, None


def gradient_factor(elements: int, quant_max: int) -> float:
    """1 / sqrt(N * quant_max), N elements to a scale: Esser et al. 2020, section 2.2."""
    return 1 / math.sqrt(elements * max(quant_max, 1))


class LearnedScale(StatefulSource):
    """A trainable scale, and a zero point that stays where it began.

    Both begin as what `initial` answers for the first tensor, or for all batches of a calibration. Where that is all
    zeros (the B of a LoRA, a head that begins at 0) there is no scale to be found, and what the first steps of an
    optimizer make of the zeros says nothing about their size later. There the scale goes on growing with the tensor,
    and what it learns is to be larger than that.

    Args:
        initial: a source of scales, as in `observer.py`.
        shape: of the scale; broadcasts against the grouped tensor.
        symmetric: without a zero point.
        power_of_two: the scale in use is the power of two above the learned one, straight-through.
    """

    zero_point: Tensor | None
    begin: Tensor  # log2 of what was found in a forward pass: a sharded parameter loses what is written to it there
    seen: Tensor  # for each scale ZEROS, NOTHING or NUMBERS; in an average, its size says how much of `begin` is data

    def __init__(self, initial: Source, shape: torch.Size, symmetric: bool, power_of_two: bool) -> None:
        super().__init__()
        self.initial, self.power_of_two, self.shape = initial, power_of_two, shape
        stored = shape or (1,)  # FSDP shards no parameter without a dimension
        self.log2_scale = nn.Parameter(torch.zeros(stored))
        self.register_buffer("begin", torch.zeros(stored))
        self.register_buffer("zero_point", None if symmetric else torch.zeros(stored))
        self.register_buffer("seen", torch.full(stored, NOTHING))

    def qparams(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        log2_scale = self.log2_scale + self.begin
        zero_point = self.zero_point
        if not (self.settled or self._has_begun()) and not (self.training and self._has_seen_all()):
            begin, zero_point, _ = self._found(x)
            log2_scale = self.log2_scale + begin
        if self.power_of_two:
            log2_scale = log2_scale + (log2_scale.ceil() - log2_scale).detach()
        return log2_scale.exp2(), zero_point

    def observe(self, x: Tensor) -> None:
        if self.settled or only_looks():
            return
        if self.calibrating:
            self.seen.fill_(NOTHING)
        elif self._has_begun():
            return
        x = x.detach()
        waited = self.initial.only_zeros
        self.initial.observe(x)
        if self.initial.only_zeros:
            return
        with torch.no_grad():
            self._begin(x, on_zeros=waited)

    def _begin(self, x: Tensor, on_zeros: bool) -> None:
        begin, zero_point, seen = self._found(x)
        self.begin.copy_(begin)
        self.seen.copy_(seen.abs() * ZEROS if on_zeros else seen)
        if self.zero_point is not None and zero_point is not None:
            self.zero_point.copy_(zero_point)

    def _found(self, x: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
        """`begin`, zero point and `seen` once x has been seen as well."""
        nothing = self.seen == NOTHING
        share = torch.where(nothing, NUMBERS, self.seen.abs())
        before = self.begin / share
        scale, zero_point = self.initial.covering(x) if self._has_seen_all() else self.initial.qparams(x)
        begin = scale.detach().log2() - self.log2_scale.detach()
        grown = (nothing | ((self.seen < 0) & (begin > before))) & begin.isfinite()
        if zero_point is not None and self.zero_point is not None:
            zero_point = torch.where(grown, zero_point, (self.zero_point / share).round())
        seen = torch.where(scale > 2 * SMALLEST_SCALE, NUMBERS, ZEROS)
        return torch.where(grown, begin, before), zero_point, torch.where(grown & nothing, seen, self.seen.sign())

    @torch.no_grad()
    def start(self, x: Tensor) -> None:
        """Begin from what `initial` answers for x, with the whole of it in the parameter."""
        self.observe(x)
        self.log2_scale.add_(self.begin)
        self.begin.zero_()

    def _has_seen_all(self) -> bool:
        return self._without_numbers() or bool((self.seen != NOTHING).all())

    def _has_begun(self) -> bool:
        if not (self.settled or self._without_numbers()):
            self.settled = not self.calibrating and bool((self.seen == NUMBERS).all())
            if self.settled and self.zero_point is not None:
                self.zero_point.round_()  # a mean of several lies between two codes
        return self.settled

    def _without_numbers(self) -> bool:
        return self.seen.is_meta or without_numbers()

    @torch.no_grad()
    def restart(self) -> None:
        self.log2_scale.zero_()
        self.seen.fill_(NOTHING)
        self.settled = False

    def upgrade(self, state: dict[str, Tensor], under: set[str]) -> None:
        """Earlier versions had NaN where a scale had not begun, and one scale had no dimension. What has parameters
        and no buffers leaves those as they are."""
        state |= {
            name: tensor.reshape(getattr(self, name).shape) for name, tensor in state.items() if tensor.dim() == 0
        }
        if "initial.low" in under and "initial.seen" not in under:
            log2_scale = state["log2_scale"]
            state["begin"] = torch.zeros_like(log2_scale)
            state["seen"] = torch.where(log2_scale.isfinite(), NUMBERS, NOTHING)
            state["log2_scale"] = log2_scale.nan_to_num()
        for name, buffer in self._buffers.items():
            if name not in state and buffer is not None:
                state[name] = buffer
