"""When quantization and observers switch in the course of a training."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from qat_core.fake_quant import FakeQuantize
from qat_core.layers import quantized_layers, require_prepared
from qat_core.lsq import LearnedScale
from qat_core.observer import MovingRange
from qat_core.oscillations import Oscillations, annealed_threshold


class Schedule:
    """Switch quantization on after some steps and observers off after some more; call `step()` after each step.

    `Schedule.over(model, steps)` is the recipe for a training of so many steps.

    Early on, weights move far and ranges are those of an untrained network; late, a range that still moves keeps the
    weights from settling. Learned scales begin when quantization sets in.

    Args:
        model: prepared.
        quantize_after: steps in float before quantization sets in; observers watch all the while.
        freeze_observers_after: steps after which the ranges of activations stay; None is never.
        oscillations: of the same model, tracked from when quantization sets in; do not step it as well.

    Attributes:
        steps: how many are done. Set it, or load the schedule's `state_dict`, when you go on from a checkpoint.

    Source: Krishnamoorthi 2018, "Quantizing deep convolutional networks for efficient inference: A whitepaper",
    section 3.2 (delayed quantization); Jacob et al. 2018, section 3.1.
    """

    def __init__(
        self,
        model: nn.Module,
        quantize_after: int = 0,
        freeze_observers_after: int | None = None,
        oscillations: Oscillations | None = None,
    ) -> None:
        for name, value in (("quantize_after", quantize_after), ("freeze_observers_after", freeze_observers_after)):
            if value is not None:
                _check_steps(name, value)
        require_prepared(model)
        self.model = model
        self.quantize_after, self.freeze_observers_after = quantize_after, freeze_observers_after
        self.oscillations = oscillations
        self.steps = 0

    @classmethod
    def over(cls, model: nn.Module, steps: int) -> "Schedule":
        """The first part of a training in float, then quantized, and from then on weights that swing are held.

        Quantized from its first step, a network may stay behind one that has learned its task in float and then learns
        its grid. So half of the steps are in float; a quarter where weights have two bits or less, whose grid takes
        longer to learn. Holding, as `Oscillations` does, takes six numbers for each weight.

        Measured with 3 and 4 bits: where a thousand steps leave a network behind that is quantized from its first step,
        curves come out several times closer, and other tasks about as close. Where its steps are enough, as on the
        sine of the tutorial, half of them are too few for the grid, and it loses, most with one scale a tensor. With 2
        bits or less curves gain, and smooth functions of several numbers lose more. So compare the two.

        Args:
            model: prepared, best with `scale="learned"`.
            steps: of the optimizer, in the whole training.

        Source: Krishnamoorthi 2018, section 3.2; Nagel et al. 2022, "Overcoming Oscillations in Quantization-Aware
        Training", section 4.3.
        """
        _check_steps("steps", steps)
        require_prepared(model)
        bits = min(
            quantizer.spec.bits for _, layer in quantized_layers(model) for *_, quantizer in layer.quantized_weights()
        )
        in_float = steps // 2 if bits > 2 else steps // 4
        return cls(model, in_float, oscillations=Oscillations(model, annealed_threshold(steps), freeze=True))

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
            if self.oscillations:
                self.oscillations.restart(self.steps)
        elif self.oscillations and self.steps > self.quantize_after:
            self.oscillations.step()

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs beside the model's own."""
        tracked = {"oscillations": self.oscillations.state_dict()} if self.oscillations else {}
        return {"steps": self.steps} | tracked

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint of a schedule with the same arguments."""
        self.steps = state["steps"]
        if self.oscillations:
            self.oscillations.load_state_dict(state["oscillations"])
            self.oscillations.steps = self.steps


def _check_steps(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{name}={value!r}; expected a whole number of steps")
