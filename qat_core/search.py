"""A scale that is searched for: a fraction of min-max's, of the smallest squared error."""

from typing import Any

import torch
from torch import Tensor

from qat_core.affine import Axis, minmax_qparams, mse_fraction, shrunk
from qat_core.processes import in_trace, only_looks
from qat_core.source import StatefulSource, Take, whole
from qat_core.spec import QuantSpec

SEARCH_EVERY = 16  # forward passes


class SmallestError(StatefulSource):
    """Min-max scales, each times the fraction that gives the smallest squared error.

    The fraction stays from one forward pass to the next: all are tried on the first tensor, and while training the
    neighbours of the last on every 16th. In between the scale moves with the extremes alone, as it does all along where
    a compiler looks at the forward pass: call the model, or calibrate it, before it is compiled.

    Args:
        spec: of the tensors.
        axis: of the output channels.
        shape: of the scale.
    """

    each_row = True

    fraction: Tensor
    seen: Tensor  # tensors since the last search; 0 is never

    def __init__(self, spec: QuantSpec, axis: Axis = 0, shape: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.spec, self.axis = spec, axis
        self.passes = 0
        self.last_scale: Tensor | None = None
        self.holds_for(spec)
        self.register_buffer("fraction", torch.ones(shape, dtype=torch.float32))
        self.register_buffer("seen", torch.zeros((), dtype=torch.float32))

    def qparams(self, x: Tensor, take: Take = whole) -> tuple[Tensor, Tensor | None]:
        full_scale, zero_point = minmax_qparams(x.detach(), self.spec, self.axis)
        return self.scale(x.detach(), full_scale, zero_point, take), zero_point

    def scale(self, x: Tensor, full_scale: Tensor, zero_point: Tensor | None, take: Take = whole) -> Tensor:
        """The scale for x, given that of min-max."""
        fraction = take(self.fraction)
        if not (self.without_numbers() or self._passes()):
            fraction = mse_fraction(x, full_scale, zero_point, self.spec, self.axis)
        return shrunk(full_scale, fraction, self.spec)

    @torch.no_grad()
    def observe(self, x: Tensor) -> None:
        if self.without_numbers() or only_looks() or not x.numel():
            return
        passes = self._passes()
        if passes and not self.training:
            return
        self.passes = passes + 1
        if passes == 0 or self.passes >= SEARCH_EVERY - 1:
            self._search(x)
        self.seen.fill_(self.passes)
        if not self.seen.is_cpu:
            self.settled = not in_trace()

    def _search(self, x: Tensor) -> None:
        """Not twice for one step of the optimizer: forward passes with the same weights have the same scale."""
        full_scale, zero_point = minmax_qparams(x, self.spec, self.axis)
        first, last = self.passes == 1, self.last_scale
        same = last is not None and last.device == full_scale.device and torch.equal(full_scale, last)
        self.last_scale = full_scale
        if not full_scale.isfinite().all():
            self.passes -= 1
        elif first or (self.passes >= SEARCH_EVERY and not same):
            around = None if first else self.fraction
            self.fraction.copy_(mse_fraction(x, full_scale, zero_point, self.spec, self.axis, around))
            self.passes = 1

    def _passes(self) -> int:
        seen = self.seen
        if seen.is_cpu:  # where a number need not be waited for
            self.passes = int(seen.item())
        elif not self.settled:
            self.passes, self.settled = int(seen.item()), not in_trace()
        return self.passes

    def restart(self) -> None:
        self.seen.zero_()
        self.settled = False

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"last_scale": None}
