"""When quantization and observers switch in the course of a training."""

from torch import nn

from qat_core.fake_quant import FakeQuantize
from qat_core.layers import require_prepared
from qat_core.lsq import LearnedScale
from qat_core.observer import MovingRange


class Schedule:
    """Switch quantization on after some steps and observers off after some more; call `step()` after each step.

    Early on, weights move far and ranges are those of an untrained network; late, a range that still moves keeps the
    weights from settling. Learned scales begin when quantization sets in.

    Args:
        model: prepared.
        quantize_after: steps in float before quantization sets in; observers watch all the while.
        freeze_observers_after: steps after which the ranges of activations stay; None is never.

    Source: Krishnamoorthi 2018, "Quantizing deep convolutional networks for efficient inference: A whitepaper",
    section 3.2 (delayed quantization); Jacob et al. 2018, section 3.1.
    """

    def __init__(self, model: nn.Module, quantize_after: int = 0, freeze_observers_after: int | None = None) -> None:
        for name, value in (("quantize_after", quantize_after), ("freeze_observers_after", freeze_observers_after)):
            if value is not None and (not isinstance(value, int) or value < 0):
                raise ValueError(f"{name}={value!r}; expected a whole number of steps")
        require_prepared(model)
        self.model, self.steps = model, 0
        self.quantize_after, self.freeze_observers_after = quantize_after, freeze_observers_after
        self._apply()

    def step(self) -> None:
        """One optimizer step is done."""
        self.steps += 1
        self._apply()

    def _apply(self) -> None:
        enabled = self.steps >= self.quantize_after
        frozen = self.freeze_observers_after is not None and self.steps >= self.freeze_observers_after
        for module in self.model.modules():
            if isinstance(module, FakeQuantize):
                if enabled and not module.enabled and isinstance(module.source, LearnedScale):
                    module.source.restart()
                module.enabled = enabled
            elif isinstance(module, MovingRange):
                module.observing = not frozen
