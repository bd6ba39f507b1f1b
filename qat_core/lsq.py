"""The learned step size: the scale is trained with the weights, by the gradient of the same lie.

With v = x / s and the straight-through estimator for round(), the output y = s * round(clamp(v)) has the slope

    dy/ds = round(v) - v        where the code was not clamped: the rounding error itself
    dy/ds = code of the limit   where it was: the level moves with the scale

so a scale shrinks when its rounding errors hurt and grows when its clamped values do. It is summed over all the
elements that share the scale and multiplied by 1 / sqrt(N * quant_max), which brings it to the size of a weight's
gradient.

What is trained is the logarithm of how far the scale has moved from where it began:

    s = 2^(begin + RATE * log2_growth)                  of activations
    s = 2^(begin + RATE * log2_growth) * ||w||          of weights: where they grow, so do their stairs

The scale stays positive, an optimizer's step is a fraction of the scale whatever its size, and weight decay pulls it
back to its beginning. Without ||w||, which has no gradient, a network that is trained from its first weights would
outgrow its stairs: what is clamped no longer learns, and the scale comes after too late. With plain descent it would
not come at all: `log2_growth` gets RATE * ln(2) * s times the gradient of the scale, and s is small.

One scale of a whole weight with NARROW bits or fewer stays by itself, since with it curves came out further off under
Adam. Descent moves its logarithm as it would move the weights counted in STAIRS stairs, which are large there: with
more bits a steep loss would throw such a scale to where all its weights are 0 or clamped.

Source: Esser et al. 2020, "Learned Step Size Quantization", equations 3 and 5 and section 2.2. Logarithm: Jain et al.
2020, "Trained Quantization Thresholds for Accurate and Efficient Fixed-Point Inference", section 4.
"""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from qat_core.affine import SMALLEST_SCALE, Axis, dequantize_, round_to_codes
from qat_core.processes import in_trace, only_looks
from qat_core.room import WithRoom, norm
from qat_core.source import Source, StatefulSource, Take, whole
from qat_core.spec import QuantSpec
from qat_core.ste import where_not_clamped

NARROW = 3  # bits of a whole weight whose scale stays by itself
STAIRS = 6.0  # that descent moves weights by while it moves the logarithm of such a scale by 1
RATE = 2.0  # octaves that a scale moves where its parameter moves by 1
ZEROS, NOTHING, NUMBERS = -1.0, 0.0, 1.0
SMALLEST_NORM = 2.0**-40


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
        factor = gradient_factor(x.numel() // max(scale.numel(), 1), ctx.quant_max)
        grad_scale = summed(slopes, scale).div_(scale).mul_(factor).nan_to_num_(0.0, torch.inf, -torch.inf)
        return grad_x, grad_scale, None, None, None, None


def summed(slopes: Tensor, scale: Tensor) -> Tensor:
    """Over the elements that share a scale, in its shape; `sum_to_size`, at half the cost where there are few."""
    if scale.numel() == 1:
        return slopes.sum().reshape(scale.shape)
    shared = [dim for dim, size in enumerate(scale.shape) if size == 1]
    return slopes.sum(shared, True) if shared else slopes


def gradient_factor(elements: int, quant_max: int) -> float:
    """1 / sqrt(N * quant_max), N elements to a scale: Esser et al. 2020, section 2.2."""
    return 1 / math.sqrt(max(elements, 1) * max(quant_max, 1))


class LearnedScale(StatefulSource):
    """A trainable scale, and a zero point that stays where it began.

    Both begin as what `initial` answers for the first tensor, or for all batches of a calibration. Where that is all
    zeros there is no scale to be found, and the first other numbers say nothing about their size later. There the
    scale goes on growing with the tensor, and what it learns is to be larger than that.

    Args:
        initial: a source of scales, as in `observer.py`.
        shape: of the scale; broadcasts against the grouped tensor.
        spec: with `power_of_two` the scale in use is the power of two above the learned one, straight-through.
    """

    former: ClassVar[tuple[str, ...]] = ("log2_scale",)

    zero_point: Tensor | None
    begin: Tensor  # log2 of the scale that was found
    seen: Tensor  # for each scale ZEROS, NOTHING or NUMBERS; in an average, its size says how much of `begin` is data

    def __init__(self, initial: Source, shape: torch.Size, spec: QuantSpec) -> None:
        super().__init__()
        self.initial, self.power_of_two, self.shape = initial, spec.power_of_two, shape
        self.holds_for(spec)
        stored = shape or (1,)  # FSDP shards no parameter without a dimension
        zeros = torch.zeros(stored, dtype=torch.float32)
        self.log2_growth = nn.Parameter(zeros)
        self.register_buffer("begin", zeros.clone())
        self.register_buffer("zero_point", None if spec.symmetric else zeros.clone())
        self.register_buffer("seen", torch.full_like(zeros, NOTHING))

    @property
    def log2_scale(self) -> nn.Parameter:
        """`log2_growth` by its former name, for code that knows it by that."""
        return self.log2_growth

    def qparams(self, x: Tensor, take: Take = whole) -> tuple[Tensor, Tensor | None]:
        if self.each_row:
            begin, zero_point = self.begin, None if self.zero_point is None else take(self.zero_point)
        else:
            begin, zero_point, _ = self._found(x)
        log2_ratio = begin.add(self.growth(), alpha=RATE)
        if self.power_of_two:
            log2_scale = self.log2_begin(x, take(log2_ratio))
            return (log2_scale + (log2_scale.ceil() - log2_scale).detach()).exp2(), zero_point
        # exp2 rounds a number by its place in memory, so it is asked before rows are taken
        return self.times_begin(x, take(log2_ratio.exp2())), zero_point

    @property
    def each_row(self) -> bool:  # type: ignore[override]
        """Is what the scales begin from known by now, and not to be found in the whole tensor?"""
        return self.settled or self._has_begun() or (self.training and self._has_seen_all())

    def growth(self) -> Tensor:
        """`log2_growth`, with the gradient that it is to get."""
        return self.log2_growth

    def log2_begin(self, x: Tensor, begin: Tensor) -> Tensor:
        """Log2 of the scale of x that `begin` stands for."""
        return begin

    def times_begin(self, x: Tensor, ratio: Tensor) -> Tensor:
        """The scale of x, 2^`log2_begin`, that 2^begin stands for."""
        return ratio

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
        self._has_begun()

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
        begin = scale.detach().log2() - self.log2_begin(x, RATE * self.log2_growth.detach())
        grown = (nothing | ((self.seen < 0) & (begin > before))) & begin.isfinite()
        if zero_point is not None and self.zero_point is not None:
            zero_point = torch.where(grown, zero_point, (self.zero_point / share).round())
        seen = torch.where(scale > 2 * SMALLEST_SCALE, NUMBERS, ZEROS)
        return torch.where(grown, begin, before), zero_point, torch.where(grown & nothing, seen, self.seen.sign())

    def _has_seen_all(self) -> bool:
        return bool(self.answer_to(lambda: (self.seen != NOTHING).all(), True))

    def _has_begun(self) -> bool:
        if self.settled or self.without_numbers():
            return self.settled
        begun = not self.calibrating and bool((self.seen == NUMBERS).all())
        if begun and self.zero_point is not None:
            self.zero_point.round_()  # a mean of several lies between two codes
        self.settled = begun and not in_trace()
        return begun

    @torch.no_grad()
    def restart(self) -> None:
        self.log2_growth.zero_()
        self.seen.fill_(NOTHING)
        self.settled = False

    def upgrade(self, state: dict[str, Tensor]) -> None:
        """Earlier versions had the whole logarithm in a parameter, NaN where it had not begun, other numbers for what
        was seen, and one scale had no dimension. What has parameters and no buffers leaves those as they are."""
        if (log2_scale := state.pop("log2_scale", None)) is not None:
            seen = state.get("seen", 2 * log2_scale.isfinite())
            state["seen"] = seen.new_tensor((NOTHING, ZEROS, NUMBERS), dtype=torch.float32)[seen.long()]
            state["begin"] = log2_scale.nan_to_num() + state.get("begin", 0)
            state["log2_growth"] = torch.zeros_like(log2_scale)
        state |= {
            name: tensor.reshape(getattr(self, name).shape) for name, tensor in state.items() if tensor.dim() == 0
        }
        for name, buffer in self._buffers.items():
            if name not in state and buffer is not None:
                state[name] = buffer


class LearnedScaleOfWeight(LearnedScale):
    """Trainable scales that grow with the weight: `begin` is log2 of their ratio to the norm of the elements.

    One of a whole weight with few bits stays by itself. So does each once the weight is written from its scale, as held
    elements are: each would drive the other up.

    Args:
        spec: of the weight.
        axis: of the output channels.
        dims: that share a scale; none named means all.
        shape: of the scale.
    """

    former = (*LearnedScale.former, "pace")

    grows: Tensor | None  # 1, or 0 once it stays by itself
    pace: Tensor | None  # how far descent moves `log2_growth` beside where autograd's gradient would

    def __init__(self, spec: QuantSpec, axis: Axis, dims: tuple[int, ...], shape: torch.Size) -> None:
        grows = spec.granularity != "per_tensor" or spec.bits > NARROW
        super().__init__(WithRoom(spec, axis, SMALLEST_NORM if grows else 0.0), shape, spec)
        self.dims = dims
        self.register_buffer("grows", torch.ones(1, dtype=torch.float32) if grows else None)
        self.register_buffer("pace", None if grows else torch.ones_like(self.begin))

    def growth(self) -> Tensor:
        if self.pace is None:
            return self.log2_growth
        still = self.log2_growth.detach()
        return torch.addcmul(still, self.log2_growth - still, self.pace)

    def log2_begin(self, x: Tensor, begin: Tensor) -> Tensor:
        if self.grows is None:
            return begin
        return torch.addcmul(begin, norm(x, self.dims, SMALLEST_NORM).log2_(), self.grows)

    def times_begin(self, x: Tensor, ratio: Tensor) -> Tensor:
        if self.grows is None:
            return ratio
        return ratio * torch.where(self.grows == 0, 1.0, norm(x, self.dims, SMALLEST_NORM))

    def _begin(self, x: Tensor, on_zeros: bool) -> None:
        super()._begin(x, on_zeros)
        if self.pace is not None:
            stairs = STAIRS * RATE * math.log(2) * self.begin.exp2()
            self.pace.copy_(torch.where(self.seen == NUMBERS, stairs.square().reciprocal(), 1.0))

    @torch.no_grad()
    def stop_growing(self, x: Tensor) -> None:
        if self.grows is not None and self.grows.any() and self._has_begun():
            self.begin.copy_(self.log2_begin(x, self.begin))
            self.grows.zero_()

    @torch.no_grad()
    def restart(self) -> None:
        super().restart()
        if self.grows is not None:
            self.grows.fill_(1.0)

    def upgrade(self, state: dict[str, Tensor]) -> None:
        """In earlier versions any scale that was the only one of its weight stayed by itself."""
        if self.grows is not None and self.begin.numel() == 1:
            state.pop("pace", None)
            if "begin" in state and not {"grows", "log2_scale"} & state.keys():  # the latter is a ratio by now
                state["grows"] = torch.zeros_like(self.grows)
        super().upgrade(state)
