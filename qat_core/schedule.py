"""When quantization and observers switch in the course of a training."""

from collections.abc import Mapping

from torch import nn

from qat_core.fake_quant import FakeQuantize
from qat_core.layers import quantized_layers, require_prepared
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

    Attributes:
        steps: how many are done. Set it, or load the schedule's `state_dict`, when you go on from a checkpoint.

    Source: Krishnamoorthi 2018, "Quantizing deep convolutional networks for efficient inference: A whitepaper",
    section 3.2 (delayed quantization); Jacob et al. 2018, section 3.1.
    """

    def __init__(self, model: nn.Module, quantize_after: int = 0, freeze_observers_after: int | None = None) -> None:
        for name, value in (("quantize_after", quantize_after), ("freeze_observers_after", freeze_observers_after)):
            if value is not None:
                _check_steps(name, value)
        require_prepared(model)
        self.model = model
        self.quantize_after, self.freeze_observers_after = quantize_after, freeze_observers_after
        self.steps = 0

    @property
    def steps(self) -> int:
        return self._steps

    @steps.setter
    def steps(self, value: int) -> None:
        """Switch everything to what holds after so many steps; what is learned and seen stays."""
        _check_steps("steps", value)
        self._steps = value
        frozen = self.freeze_observers_after is not None and value >= self.freeze_observers_after
        for module in self.model.modules():
            if isinstance(module, FakeQuantize):
                module.enabled = value >= self.quantize_after
            elif isinstance(module, MovingRange):
                module.observing = not frozen

    def step(self) -> None:
        """One optimizer step is done."""
        self.steps += 1
        if self.steps == self.quantize_after:
            for module in self.model.modules():
                if isinstance(module, LearnedScale):
                    module.restart()
            for _, layer in quantized_layers(self.model):
                layer.begin_scales()

    def state_dict(self) -> dict[str, int]:
        """What a checkpoint needs beside the model's own."""
        return {"steps": self.steps}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on from a checkpoint of a schedule with the same arguments."""
        self.steps = state["steps"]


def _check_steps(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{name}={value!r}; expected a whole number of steps")
