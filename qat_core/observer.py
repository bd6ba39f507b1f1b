"""Ranges of activations: what was seen of them so far, and the constants that they become in the end."""

from collections import deque
from typing import Any

import torch
from torch import Tensor

from qat_core.affine import qparams_of_range
from qat_core.processes import in_backward, in_step_with_others, in_transform, largest_of_all, without_numbers
from qat_core.source import SmallestError, Source, StatefulSource
from qat_core.spec import QuantSpec

MOMENTUM = 0.05
OFF_TIES = 1 + 2**-12  # of 255 steps it moves the last one by a sixteenth
REMEMBERED = 64  # forward passes that a backward pass may still recompute
ZERO = 2.0**-50  # a range that ends below is one of zeros, on whatever scale they were counted
NO_DATA = "an activation quantizer has seen no data yet: call calibrate(model, batches) or train"


class NoDataError(ValueError):
    """An activation quantizer was asked for its scale before it had seen any data."""


class MovingRange(StatefulSource):
    """The range of the batches so far: a moving average while training, the extremes while calibrating.

    With a scale rule other than "minmax" a batch counts with the range of its best scale instead of its extremes,
    and calibration averages as well. Batches with NaN or infinite numbers do not count in training. In
    `DistributedDataParallel` every process takes in the batches of all of them, so that all use the same scale;
    elsewhere, `synchronize` compares them.

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
        self.recent: deque[tuple[Tensor, Tensor, Tensor, Tensor]] = deque(maxlen=REMEMBERED)
        self.best = None if spec.scale == "minmax" else SmallestError(spec)
        for name in ("low", "high", "seen"):
            self.register_buffer(name, torch.zeros(()))

    @property
    def has_seen_data(self) -> bool:
        return self.settled or bool(self.seen > 0)

    def qparams(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        low, high = self._as_before(x) if in_backward() else self._ends()
        scale, zero_point = qparams_of_range(low, high, self.spec)
        return scale if self.spec.power_of_two else scale * OFF_TIES, zero_point

    @property
    def only_zeros(self) -> bool:
        """Has it seen data, and nothing else in it? Then any range does, and 0 to 1 leaves room for a bias."""
        return not (self.settled or without_numbers()) and bool(self._holds_zeros())

    def observe(self, x: Tensor) -> None:
        if in_backward() or in_transform():
            return
        alone = self.calibrating or without_numbers()
        together = not alone and in_step_with_others(first=not self.has_seen_data)
        with torch.no_grad():
            self._observe(x)
            if together:
                self._agree()

    def _observe(self, x: Tensor) -> None:
        if self.calibrating:
            if x.numel():
                self._widen(x)
        elif self.training and self.observing and x.numel():
            self._move(x)
        elif self.recent:
            self.recent.clear()

    def _ends(self) -> tuple[Tensor, Tensor]:
        if not (self.settled or without_numbers()):
            seen = float(self.seen)
            if seen == 0 and not (self.training and self.observing):
                raise NoDataError(
                    "an activation quantizer has seen no data yet: call calibrate(model, batches) or train"
                )
            self.settled = seen == 1 and not self.only_zeros
        if self.settled:
            return self.low, self.high
        return self.low / self.seen, torch.where(self._holds_zeros(), 1.0, self.high / self.seen)

    def _holds_zeros(self) -> Tensor:
        return (self.seen > 0) & (torch.maximum(self.high, -self.low) < ZERO)

    def _as_before(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The ends as they were when x came first, known by its extremes; of equal ones the latest not asked for."""
        if self.recent and x.numel():
            low, high = torch.aminmax(x.detach())
            for place in reversed(range(len(self.recent))):
                passed = self.recent[place]
                if torch.equal(passed[0], low) and torch.equal(passed[1], high):
                    del self.recent[place]
                    self.recent.appendleft(passed)
                    *_, low, high = passed
                    return low, torch.where(torch.maximum(high, -low) < ZERO, 1.0, high)
        return self._ends()

    def _move(self, x: Tensor) -> None:
        """One step of the moving average; a batch that is not finite leaves it where it is."""
        extremes = torch.aminmax(x)
        low, high = self._range_of(x, *extremes)
        if self.settled:
            low, high = torch.lerp(self.low, low, MOMENTUM), torch.lerp(self.high, high, MOMENTUM)
        else:
            first = (self.seen == 0) | self._holds_zeros()
            low = torch.where(first, low, torch.lerp(self.low / self.seen, low, MOMENTUM))
            high = torch.where(first, high, torch.lerp(self.high / self.seen, high, MOMENTUM))
        finite = high - low < torch.inf
        if not self.settled:
            self.seen.copy_(torch.where(finite, 1.0, self.seen))
        low, high = torch.where(finite, low, self.low), torch.where(finite, high, self.high)
        self.low.copy_(low)
        self.high.copy_(high)
        if not torch.compiler.is_compiling():
            self.recent.append((*extremes, low, high))

    def _widen(self, x: Tensor) -> None:
        """One batch of a calibration, which refuses in the end what is not finite."""
        if self.best is not None:
            self.best.restart()
        low, high = self._range_of(x, *torch.aminmax(x))
        if self.has_seen_data and self.best is None:
            low, high = torch.minimum(self.low, low), torch.maximum(self.high, high)
        elif self.has_seen_data:
            low, high = torch.lerp(self.low, low, MOMENTUM), torch.lerp(self.high, high, MOMENTUM)
        self.low.copy_(low)
        self.high.copy_(high)
        self.seen.fill_(1)

    def _range_of(self, x: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """What a batch counts with, given its extremes."""
        if self.best is not None:
            self.best.observe(x)
            full_scale, zero_point = qparams_of_range(low, high, self.spec)
            scale = self.best.scale(x, full_scale, zero_point)
            if zero_point is None:
                high = (self.spec.quant_max + self.spec.shift) * scale
                low = -high
            else:
                low, high = (self.spec.quant_min - zero_point) * scale, (self.spec.quant_max - zero_point) * scale
        return low.to(self.low.dtype), high.to(self.high.dtype)

    def _agree(self) -> None:
        """The widest range of all processes, for all of them."""
        ends = torch.stack((-self.low, self.high, self.seen))
        ends = largest_of_all(torch.where(self.seen > 0, ends, -torch.inf))
        low, high, seen = torch.where(ends > -torch.inf, ends, 0) * ends.new_tensor((-1, 1, 1))
        self.low.copy_(low)
        self.high.copy_(high)
        self.seen.copy_(seen)
        if self.recent:
            self.recent[-1] = (*self.recent[-1][:2], low, high)

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
        return self.__dict__ | {"recent": deque(maxlen=REMEMBERED)}


class Fixed(Source):
    """Constants: what every other source becomes in `convert`."""

    scale: Tensor
    zero_point: Tensor | None

    def __init__(self, scale: Tensor, zero_point: Tensor | None) -> None:
        super().__init__()
        self.register_buffer("scale", scale)
        self.register_buffer("zero_point", zero_point)

    def qparams(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.scale, self.zero_point


@torch.no_grad()
def fix(source: Source, x: Tensor, at_least: Tensor | None = None) -> Fixed:
    """The constants that `source` answers for x now."""
    scale, zero_point = source.qparams(x)
    if at_least is not None:
        scale = torch.maximum(scale, at_least)
    return Fixed(scale.clone(), None if zero_point is None else zero_point.clone())
