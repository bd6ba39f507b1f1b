"""What the sources of scales have in common: an FP32 checkpoint has nothing for them, and then they start anew."""

from typing import Any

from torch import nn


class StatefulSource(nn.Module):
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
