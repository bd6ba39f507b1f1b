"""What the sources of scales have in common: an FP32 checkpoint has nothing for them, and then they start anew."""

from typing import Any

from torch import Tensor, nn


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
    """A source of scales that remembers what it has seen or learned."""

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
