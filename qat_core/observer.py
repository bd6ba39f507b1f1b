"""Where a scale and a zero point come from: each source answers `source.qparams(x)`.

`x` is the tensor about to be quantized, as `to_groups` returns it; the answer broadcasts against it. Asking moves
nothing: what a source takes from x it takes in `source.observe(x)`, which each forward pass calls first. Gradient
checkpointing recomputes a forward pass, and then nothing is taken and the answer is that of the first time.

What a source remembers is numbers in float32 buffers, finite from the first moment, beside a number that says how much
of them is memory: copying, averaging, loading and sending them is ordinary work with tensors.
"""

from collections import deque
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from qat_core.affine import minmax_qparams, mse_fraction, mse_qparams, qparams_of_range, shrunk
from qat_core.processes import in_backward, in_step_with_others, largest_of_all
from qat_core.spec import QuantSpec

MOMENTUM = 0.05
OFF_TIES = 1 + 2**-12  # of 255 steps it moves the last one by a sixteenth
SEARCH_EVERY = 16  # forward passes
REMEMBERED = 64  # forward passes that a backward pass may still recompute


NO_DATA = "an activation quantizer has seen no data yet: call calibrate(model, batches) or train"


class NoDataError(ValueError):
    """An activation quantizer was asked for its scale before it had seen any data."""


class Source(nn.Module):
    """Keeps what a scale comes from.

    Attributes:
        covers_all: nothing in x ever lies beyond the grid.
        calibrating: it takes in every tensor, whole batches being shown to it.
    """

    covers_all = False
    calibrating = False

    def qparams(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Scale and zero point (None when symmetric) for x, as `to_groups` returns it; both broadcast against it."""
        raise NotImplementedError

    def observe(self, x: Tensor) -> None:
        """x is about to be quantized: take it in, if now is the time for it."""

    def restart(self) -> None:
        """Forget what was taken in: the next tensor is the first."""

    def covering(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """The same, found at once, if the best takes a search."""
        return self.qparams(x)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Source":
        """Follow a model to another device, but not to half precision: a range moves in steps too fine for it."""

        def kept(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return tensor.to(moved.device) if moved.dtype.itemsize < 4 <= tensor.dtype.itemsize else moved

        return super()._apply(kept, recurse)


class StatefulSource(Source):
    """A source of scales that remembers what it has seen or learned.

    A checkpoint that has nothing for it leaves it as it is.

    Attributes:
        settled: what it remembers is known to be complete, and need not be asked each time; nothing else hangs on it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.settled = False

    def train(self, mode: bool = True) -> "StatefulSource":
        self.settled = False  # averages may have been copied into it
        return super().train(mode)

    def upgrade(self, state: dict[str, Tensor]) -> None:
        """Fill in what checkpoints of earlier versions do not have; `state` has the names of this source's tensors."""

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        names = [*self._parameters, *self._buffers]
        state = {name: state_dict[prefix + name] for name in names if prefix + name in state_dict}
        self.settled = False
        if state:
            self.upgrade(state)
            state_dict |= {prefix + name: tensor.float() for name, tensor in state.items()}
            super()._load_from_state_dict(state_dict, prefix, *args)


class FromTensor(Source):
    """Measured on the very tensor at hand, each time: for weights, which move, and for dynamic activations."""

    def __init__(self, spec: QuantSpec, axis: int) -> None:
        super().__init__()
        self.spec, self.axis = spec, axis
        self.covers_all = spec.symmetric and spec.scale == "minmax"
        self.choose_qparams = minmax_qparams if spec.scale == "minmax" else mse_qparams

    def qparams(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.choose_qparams(x.detach(), self.spec, self.axis)

    def observe(self, x: Tensor) -> None:
        """x is about to be quantized: take it in, if now is the time for it."""

    def covering(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        return minmax_qparams(x.detach(), self.spec, self.axis)


class SmallestError(StatefulSource):
    """Min-max scales, each times the fraction that gives the smallest squared error.

    The fraction stays from one forward pass to the next: all are tried on the first tensor, and while training the
    neighbours of the last on every 16th. In between the scale moves with the extremes alone.

    Args:
        spec: of the tensors.
        axis: of the output channels.
        shape: of the scale.
    """

    fraction: Tensor
    seen: Tensor  # tensors since the last search; 0 is never

    def __init__(self, spec: QuantSpec, axis: int = 0, shape: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.spec, self.axis = spec, axis
        self.passes, self.last_scale = 0, torch.empty(0)
        self.register_buffer("fraction", torch.ones(shape))
        self.register_buffer("seen", torch.zeros(()))

    def qparams(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        full_scale, zero_point = minmax_qparams(x.detach(), self.spec, self.axis)
        return self.scale(x.detach(), full_scale, zero_point), zero_point

    def scale(self, x: Tensor, full_scale: Tensor, zero_point: Tensor | None) -> Tensor:
        """The scale for x, given that of min-max."""
        fraction = self.fraction
        if not (torch.compiler.is_compiling() or self._passes()):
            fraction = mse_fraction(x, full_scale, zero_point, self.spec, self.axis)
        return shrunk(full_scale, fraction, self.spec)

    @torch.no_grad()
    def observe(self, x: Tensor) -> None:
        if torch.compiler.is_compiling() or in_backward() or not x.numel():
            return
        passes = self._passes()
        if passes and not self.training:
            return
        self.passes = passes + 1
        if passes == 0 or self.passes >= SEARCH_EVERY - 1:
            self._search(x)
        self.seen.fill_(self.passes)

    def _search(self, x: Tensor) -> None:
        """Not twice for one step of the optimizer: forward passes with the same weights have the same scale."""
        full_scale, zero_point = minmax_qparams(x, self.spec, self.axis)
        first, same = self.passes == 1, torch.equal(full_scale, self.last_scale)
        self.last_scale = full_scale
        if not full_scale.isfinite().all():
            self.passes -= 1
        elif first or (self.passes >= SEARCH_EVERY and not same):
            around = None if first else self.fraction
            self.fraction.copy_(mse_fraction(x, full_scale, zero_point, self.spec, self.axis, around))
            self.passes = 1

    def _passes(self) -> int:
        if not self.settled:
            self.passes, self.settled = int(self.seen), True
        return self.passes

    def restart(self) -> None:
        self.seen.zero_()
        self.settled = False

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"last_scale": torch.empty(0)}


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

    @torch.no_grad()
    def observe(self, x: Tensor) -> None:
        if in_backward():
            return
        together = not self.calibrating and in_step_with_others(first=not self.has_seen_data)
        if self.calibrating:
            if x.numel():
                self._widen(x)
        elif self.training and self.observing and x.numel():
            self._move(x)
        elif self.recent:
            self.recent.clear()
        if together:
            self._agree()

    def _ends(self) -> tuple[Tensor, Tensor]:
        if not (self.settled or torch.compiler.is_compiling()):
            seen = float(self.seen)
            if seen == 0 and not (self.training and self.observing):
                raise NoDataError(
                    "an activation quantizer has seen no data yet: call calibrate(model, batches) or train"
                )
            self.settled = seen == 1
        return (self.low, self.high) if self.settled else (self.low / self.seen, self.high / self.seen)

    def _as_before(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The ends as they were when x came first, known by its extremes; of equal ones the latest not asked for."""
        if self.recent and x.numel():
            low, high = torch.aminmax(x.detach())
            for place in reversed(range(len(self.recent))):
                passed = self.recent[place]
                if torch.equal(passed[0], low) and torch.equal(passed[1], high):
                    del self.recent[place]
                    self.recent.appendleft(passed)
                    return passed[2:]
        return self._ends()

    def _move(self, x: Tensor) -> None:
        """One step of the moving average; a batch that is not finite leaves it where it is."""
        extremes = torch.aminmax(x)
        low, high = self._range_of(x, *extremes)
        if self.settled:
            low, high = torch.lerp(self.low, low, MOMENTUM), torch.lerp(self.high, high, MOMENTUM)
        else:
            first = self.seen == 0
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
