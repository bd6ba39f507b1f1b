"""Ranges of activations: what was seen of them so far, and the constants that they become in the end."""

import math
from collections import deque
from typing import Any

import torch
from torch import Tensor

from qat_core.affine import qparams_of_range
from qat_core.processes import in_backward, in_trace, in_transform
from qat_core.search import SmallestError
from qat_core.source import Source, StatefulSource, Take, whole
from qat_core.spec import QuantSpec

MOMENTUM = 0.05
OFF_TIES = 1 + 2**-12  # of 255 steps it moves the last one by a sixteenth
REMEMBERED = 64  # forward passes that a backward pass may still recompute
ZERO = 2.0**-50  # a range that ends below is one of zeros, on whatever scale they were counted

Number = float | Tensor


class NoDataError(ValueError):
    """An activation quantizer was asked for its scale before it had seen any data."""


class MovingRange(StatefulSource):
    """The range of the batches so far: a moving average while training, the extremes while calibrating.

    With a scale rule other than "minmax" a batch counts with the range of its best scale instead of its extremes,
    and calibration averages as well. Batches with NaN or infinite numbers do not count in training. In
    `DistributedDataParallel` and FSDP2 all processes go on from the widest range after each call; elsewhere,
    `synchronize` compares them.

    The ends are `low / seen` and `high / seen`. `seen` is 0 before the first batch and 1 after it; in an average of
    several ranges it says how much of the average is data, so that an empty one does not count.

    The largest number of a batch is often a sum of n products of codes, n units of the layer before. A scale of n / 255
    units puts other sums, which are whole units too, exactly on ties, and there float32 cannot tell which code follows:
    with small n hundreds of codes depend on the order of summation. So the scale is larger by a hair, `OFF_TIES`, and
    the ties lie between the sums. Powers of two need no such care: their sums are exact.

    Source: Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference", section 3.1.
    """

    low: Tensor
    high: Tensor
    seen: Tensor

    def __init__(self, spec: QuantSpec) -> None:
        super().__init__()
        self.spec = spec
        self.observing, self.calibrating = True, False
        self.recent: deque[tuple[Number, ...]] = deque(maxlen=REMEMBERED)
        self.then: tuple[Tensor, Tensor] | None = None  # the ends for a tensor that comes again
        self.best = None if spec.scale == "minmax" else SmallestError(spec)
        for name in ("low", "high", "seen"):
            self.register_buffer(name, torch.zeros((), dtype=torch.float32))

    @property
    def has_seen_data(self) -> bool:
        return self.settled or bool(self.seen > 0)

    @property
    def only_zeros(self) -> bool:
        """Has it seen data, and nothing else in it? Then any range does, and 0 to 1 leaves room for a bias."""
        return not (self.settled or self.without_numbers()) and bool(self._holds_zeros())

    def qparams(self, x: Tensor, take: Take = whole) -> tuple[Tensor, Tensor | None]:
        low, high = self.then or self._ends()
        if self.then is not None:
            self.then = None
        scale, zero_point = qparams_of_range(low, high, self.spec)
        return scale if self.spec.power_of_two else scale.mul_(OFF_TIES), zero_point

    def observe(self, x: Tensor) -> None:
        if in_transform():
            return
        if in_backward():
            self.then = self._as_before(x)
            return
        if self.calibrating:
            self._widen(x)
        elif self.training and self.observing:
            self._move(x)
        elif self.recent:
            self.recent.clear()

    def _ends(self) -> tuple[Tensor, Tensor]:
        if not self.settled:
            self._check_seen()
        if self.settled:
            return self.low, self.high
        return self.low / self.seen, torch.where(self._holds_zeros(), 1.0, self.high / self.seen)

    def _check_seen(self) -> None:
        """Refuse to answer without data, and find out whether the ends are complete."""
        seen = self.answer_to(lambda: self.seen, None)
        if seen is None:
            return
        if seen == 0 and in_transform():
            raise NoDataError(
                "an activation quantizer has seen no data yet, and takes none in while torch.func transforms the "
                "forward pass: call calibrate(model, batches) first, or the model itself"
            )
        if seen == 0 and not (self.training and self.observing):
            raise NoDataError("an activation quantizer has seen no data yet: call calibrate(model, batches) or train")
        self.settled = seen == 1 and not (in_transform() or in_trace()) and not self.only_zeros

    def _holds_zeros(self) -> Tensor:
        return (self.seen > 0) & (torch.maximum(self.high, -self.low) < ZERO)

    def _as_before(self, x: Tensor) -> tuple[Tensor, Tensor] | None:
        """The ends as they were when x came first, known by its extremes; of equal ones the latest not asked for."""
        if x.numel() and self.recent:
            extremes = tuple(end.item() for end in torch.aminmax(x.detach()))
            for place in reversed(range(len(self.recent))):
                passed = self.recent[place]
                if passed[:2] == extremes:
                    del self.recent[place]
                    self.recent.appendleft(passed)
                    low, high = (torch.as_tensor(end, dtype=self.low.dtype, device=x.device) for end in passed[2:])
                    return low, torch.where(torch.maximum(high, -low) < ZERO, 1.0, high)
        return None

    def _move(self, x: Tensor) -> None:
        """One step of the moving average; a batch that is not finite leaves it where it is."""
        if not x.numel():
            return
        low, high = torch.aminmax(x.detach())
        passed: tuple[Number, ...] = (low, high)
        at_hand = x.is_cpu and not torch.compiler.is_compiling()  # elsewhere, asking for a number is waiting for it
        if at_hand:
            passed = (low.item(), high.item())
            if not math.isfinite(passed[1] - passed[0]):
                return
        low, high = self._counted(x, low, high)
        if at_hand and self.settled:
            self.low.lerp_(low, MOMENTUM)
            self.high.lerp_(high, MOMENTUM)
        else:
            self._move_unknown(low, high)
        if at_hand:
            self.recent.append((*passed, self.low.item(), self.high.item()))
        elif not torch.compiler.is_compiling():
            self.recent.append((*passed, self.low.clone(), self.high.clone()))

    def _move_unknown(self, low: Tensor, high: Tensor) -> None:
        """The same where it is not known, without asking, whether the numbers are finite or the first."""
        finite = high - low < torch.inf
        if self.settled:
            low, high = torch.lerp(self.low, low, MOMENTUM), torch.lerp(self.high, high, MOMENTUM)
        else:
            first = (self.seen == 0) | self._holds_zeros()
            low = torch.where(first, low, torch.lerp(self.low / self.seen, low, MOMENTUM))
            high = torch.where(first, high, torch.lerp(self.high / self.seen, high, MOMENTUM))
            self.seen.copy_(torch.where(finite, 1.0, self.seen))
        self.low.copy_(torch.where(finite, low, self.low))
        self.high.copy_(torch.where(finite, high, self.high))

    def _widen(self, x: Tensor) -> None:
        """One batch of a calibration, which refuses in the end what is not finite."""
        if not x.numel():
            return
        if self.best is not None:
            self.best.restart()
        low, high = self._counted(x, *torch.aminmax(x.detach()))
        if self.has_seen_data and self.best is None:
            low, high = torch.minimum(self.low, low), torch.maximum(self.high, high)
        elif self.has_seen_data:
            low, high = torch.lerp(self.low, low, MOMENTUM), torch.lerp(self.high, high, MOMENTUM)
        self.low.copy_(low)
        self.high.copy_(high)
        self.seen.fill_(1)

    def _counted(self, x: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """The range that a batch counts with, given its extremes."""
        if self.best is not None:
            x = x.detach()
            self.best.observe(x)
            full_scale, zero_point = qparams_of_range(low, high, self.spec)
            scale = self.best.scale(x, full_scale, zero_point)
            if zero_point is None:
                high = (self.spec.quant_max + self.spec.shift) * scale
                low = -high
            else:
                low, high = (self.spec.quant_min - zero_point) * scale, (self.spec.quant_max - zero_point) * scale
        return low.to(self.low.dtype), high.to(self.high.dtype)

    def restart(self) -> None:
        for end in (self.low, self.high, self.seen):
            end.zero_()
        self.settled = False
        if self.best is not None:
            self.best.restart()

    def train(self, mode: bool = True) -> "MovingRange":
        self.recent.clear()
        super().train(mode)
        return self

    def upgrade(self, state: dict[str, Tensor]) -> None:
        """Earlier versions had ends of plus and minus infinity where no data was seen."""
        if "seen" not in state and {"low", "high"} <= state.keys():
            seen = torch.isfinite(state["low"]) & torch.isfinite(state["high"])
            ends = {name: torch.where(seen, state[name], 0) for name in ("low", "high")}
            state |= ends | {"seen": seen.to(ends["low"].dtype)}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"recent": deque(maxlen=REMEMBERED), "then": None}


class Fixed(Source):
    """Constants: what every other source becomes in `convert`."""

    each_row = True

    scale: Tensor
    zero_point: Tensor | None

    def __init__(self, scale: Tensor, zero_point: Tensor | None) -> None:
        super().__init__()
        self.register_buffer("scale", scale)
        self.register_buffer("zero_point", zero_point)

    def qparams(self, x: Tensor, take: Take = whole) -> tuple[Tensor, Tensor | None]:
        return take(self.scale), None if self.zero_point is None else take(self.zero_point)


@torch.no_grad()
def fix(source: Source, x: Tensor, spec: QuantSpec, at_least: Tensor | None = None) -> Fixed:
    """The constants that `source` answers for x now, on the grid of `spec`."""
    scale, zero_point = source.qparams(x)
    if at_least is not None:
        scale = torch.maximum(scale, at_least)
    fixed = Fixed(_one(scale), None if zero_point is None else _one(zero_point))
    fixed.holds_for(spec)
    return fixed.to(scale.device)


def _one(parameter: Tensor) -> Tensor:
    """A copy; what is one number, and learned in a dimension of its own, has none."""
    return parameter.squeeze().clone() if parameter.dim() == 1 else parameter.clone()
