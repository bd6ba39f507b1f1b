"""Where a scale and a zero point come from: each source answers `source.qparams(x)`.

`x` is the tensor about to be quantized, as `to_groups` returns it; the answer broadcasts against it.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from qat_core.affine import minmax_qparams, mse_qparams, qparams_of_range
from qat_core.spec import QuantSpec

MOMENTUM = 0.05
OFF_TIES = 1 + 2**-12  # of 255 steps it moves the last one by a sixteenth


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


class StatefulSource(Source):
    """A source of scales that remembers what it has seen or learned.

    An FP32 checkpoint has nothing for it, and then it starts anew.
    """

    def restart(self) -> None:
        """Forget it: the next tensor is the first."""
        raise NotImplementedError

    def resume(self) -> None:
        """A checkpoint has just been loaded."""
        raise NotImplementedError

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        if not any(key.startswith(prefix) for key in state_dict):
            self.restart()
            return
        super()._load_from_state_dict(state_dict, prefix, *args)
        self.resume()


class FromTensor(Source):
    """Measured on the very tensor at hand, each time: for weights, which move, and for dynamic activations."""

    def __init__(self, spec: QuantSpec, axis: int) -> None:
        super().__init__()
        self.spec, self.axis = spec, axis
        self.covers_all = spec.symmetric and spec.scale == "minmax"
        self.choose_qparams = minmax_qparams if spec.scale == "minmax" else mse_qparams

    def qparams(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.choose_qparams(x.detach(), self.spec, self.axis)


class MovingRange(StatefulSource):
    """The range of the batches so far: a moving average while training, the extremes while calibrating.

    With a scale rule other than "minmax" a batch counts with the range of its best scale instead of its extremes,
    and calibration averages as well. Every process of `torch.distributed` takes in the batches of all of them, so
    that all use the same scale.

    The largest number of a batch is often a sum of n products of codes, n units of the layer before. A scale of n / 255
    units puts other sums, which are whole units too, exactly on ties, and there float32 cannot tell which code follows:
    with small n hundreds of codes depend on the order of summation. So the scale is larger by a hair, `OFF_TIES`, and
    the ties lie between the sums. Powers of two need no such care: their sums are exact.

    Source: Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference", section 3.1.
    """

    low: Tensor
    high: Tensor

    def __init__(self, spec: QuantSpec) -> None:
        super().__init__()
        self.spec = spec
        self.observing, self.calibrating, self.has_seen_data = True, False, False
        self.register_buffer("low", torch.tensor(torch.inf))
        self.register_buffer("high", torch.tensor(-torch.inf))

    def qparams(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        if self.calibrating or (self.training and self.observing):
            self.observe(x.detach())
        if not self.has_seen_data:
            raise NoDataError("an activation quantizer has seen no data yet: call calibrate(model, batches) or train")
        scale, zero_point = qparams_of_range(self.low, self.high, self.spec)
        return scale if self.spec.power_of_two else scale * OFF_TIES, zero_point

    def observe(self, x: Tensor) -> None:
        """Take a batch into account; x needs no gradient."""
        low, high = _over_all_processes(*self._range_of(x))
        if not x.numel() and low > high:  # no process has seen a number
            return
        if not self.has_seen_data:
            self.low.copy_(low)
            self.high.copy_(high)
        elif self.calibrating and self.spec.scale == "minmax":
            self.low.copy_(torch.minimum(self.low, low))
            self.high.copy_(torch.maximum(self.high, high))
        else:
            self.low.lerp_(low.to(self.low.dtype), MOMENTUM)
            self.high.lerp_(high.to(self.high.dtype), MOMENTUM)
            return
        self.has_seen_data = True

    def _range_of(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if not x.numel():
            return x.new_full((), torch.inf), x.new_full((), -torch.inf)
        if self.spec.scale == "minmax":
            low, high = torch.aminmax(x)
            return low, high
        scale, zero_point = mse_qparams(x, self.spec)
        if zero_point is None:
            high = (self.spec.quant_max + self.spec.shift) * scale
            return -high, high
        return (self.spec.quant_min - zero_point) * scale, (self.spec.quant_max - zero_point) * scale

    def restart(self) -> None:
        self.has_seen_data = False

    def resume(self) -> None:
        self.has_seen_data = bool(torch.isfinite(self.low) & torch.isfinite(self.high))


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


def _over_all_processes(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    if not (dist.is_available() and dist.is_initialized()):
        return low, high
    extremes = torch.stack([-low, high])
    dist.all_reduce(extremes, dist.ReduceOp.MAX)
    return -extremes[0], extremes[1]
