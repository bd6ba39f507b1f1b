"""Which weights swing to and fro between two codes, and how to hold them."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from qat_core.fake_quant import FakeQuantize
from qat_core.layers import QuantLayer, quantized_layers, require_prepared


@dataclass(frozen=True)
class LayerOscillation:
    """How restless one weight was in the last step, as fractions of its elements.

    Attributes:
        name: of the parameter in the model.
        flipped: code changed in the last step.
        oscillating: flips back and forth more often than the threshold.
        frozen: held in place.
    """

    name: str
    flipped: float
    oscillating: float
    frozen: float


class Oscillations:
    """Track weights whose codes flip back and forth, and hold them if asked to; call `step()` after each step.

    `report()` says how restless every parameter is.

    Under the straight-through estimator a latent weight near the edge between two codes is pushed across it again and
    again, since each code's gradient points to the other. An element oscillates in a step when its code changes in
    the direction opposite to its last change; its frequency is a moving average of that. Once the frequency exceeds
    `threshold`, the element can be frozen at the code where it was most of the time.

    Args:
        model: prepared.
        threshold: frequency, per step, above which an element counts as oscillating; or a function from the number of
            steps done to it, such as `annealed_threshold(steps)`.
        freeze: hold such elements from then on.
        momentum: of the moving averages.

    Attributes:
        steps: how many are done; set it when you go on from a checkpoint.

    Source: Nagel et al. 2022, "Overcoming Oscillations in Quantization-Aware Training", section 4 and algorithm 1.
    """

    def __init__(
        self,
        model: nn.Module,
        threshold: float | Callable[[int], float] = 0.02,
        freeze: bool = False,
        momentum: float = 0.02,
    ) -> None:
        if not 0 < momentum <= 1 or not (callable(threshold) or 0 < threshold < 1):
            raise ValueError(f"threshold={threshold!r}, momentum={momentum!r}; expected fractions between 0 and 1")
        require_prepared(model)
        self.threshold_at = threshold if callable(threshold) else partial(_constant, threshold)
        self.freeze, self.momentum, self.steps = freeze, momentum, 0
        self.weights = {
            f"{layer_name}.{name}" if layer_name else name: _WeightHistory(layer, name)
            for layer_name, layer, name in _distinct_weights(model)
        }

    @torch.no_grad()
    def step(self) -> None:
        """One optimizer step is done: update the averages and hold what is frozen."""
        self.steps += 1
        for weight in self.weights.values():
            weight.step(self.threshold, self.momentum, self.freeze)

    def restart(self, steps: int = 0) -> None:
        """Forget what was tracked and let go what is held: so many steps are done, and codes are what they are now."""
        self.steps = steps
        for weight in self.weights.values():
            weight.restart()

    def report(self) -> list[LayerOscillation]:
        """A row for each parameter."""
        return [LayerOscillation(name, *weight.shares(self.threshold)) for name, weight in self.weights.items()]

    @property
    def threshold(self) -> float:
        """The frequency above which an element counts as oscillating now."""
        return self.threshold_at(self.steps)

    def frequency(self, name: str) -> Tensor:
        """How often each element of a parameter oscillates, per step; of the weight's shape."""
        return self.weights[name].frequency

    def state_dict(self) -> dict[str, dict[str, Tensor]]:
        """What a checkpoint needs beside the model's own: the averages of each parameter, by its name."""
        return {name: {kind: getattr(weight, kind) for kind in self._kinds()} for name, weight in self.weights.items()}

    def load_state_dict(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Go on from a checkpoint of a tracker with the same arguments.

        Raises:
            ValueError: it is of other parameters.
        """
        if state.keys() != self.weights.keys():
            raise ValueError(f"the state is of {', '.join(state)}; expected {', '.join(self.weights)}")
        for name, weight in self.weights.items():
            for kind in self._kinds():
                setattr(weight, kind, state[name][kind].to(weight.latent.device, copy=True))

    def _kinds(self) -> tuple[str, ...]:
        return _WeightHistory.TRACKED + (_WeightHistory.HELD if self.freeze else ())


def annealed_threshold(steps: int, begin: float = 0.25, high: float = 0.1, low: float = 0.02) -> Callable[[int], float]:
    """A threshold that nothing exceeds at first and that falls from `high` to `low` along half a cosine.

    Early flips are learning and should go on; the later an element swings, the less it will still learn.

    Args:
        steps: of the whole training.
        begin: fraction of the steps before which nothing counts as oscillating.
        high, low: frequencies per step, at `begin` and at the end.

    Source: Nagel et al. 2022, section 4.3 (iterative weight freezing with an annealed threshold).
    """

    return partial(_annealed, steps, begin, high, low)


def _annealed(steps: int, begin: float, high: float, low: float, step: int) -> float:
    done = (step / steps - begin) / (1 - begin)
    return 1.0 if done < 0 else low + (high - low) * (1 + math.cos(math.pi * min(done, 1.0))) / 2


def _constant(threshold: float, step: int) -> float:
    return threshold


class _WeightHistory:
    """The averages of one weight: whatever tensor the layer has under that name now."""

    TRACKED: ClassVar = ("codes", "direction", "frequency")
    HELD: ClassVar = ("mean_code", "frozen", "frozen_code")

    def __init__(self, layer: QuantLayer, name: str) -> None:
        self.layer, self.name = layer, name
        self.restart()

    def restart(self) -> None:
        self.codes = self._codes()
        self.mean_code = self.codes.clone()
        self.change = torch.zeros_like(self.codes)
        self.direction = torch.zeros_like(self.codes)
        self.frequency = torch.zeros_like(self.codes)
        self.frozen = torch.zeros_like(self.codes, dtype=torch.bool)
        self.frozen_code = self.codes.clone()

    @property
    def latent(self) -> Tensor:
        return self.layer.latent(self.name)

    @property
    def quantizer(self) -> FakeQuantize:
        return cast(FakeQuantize, getattr(self.layer, f"{self.name}_quantizer"))

    def step(self, threshold: float, momentum: float, freeze: bool) -> None:
        codes = self._codes()
        if codes.device != self.codes.device:
            for kind in (*self.TRACKED, *self.HELD):
                setattr(self, kind, getattr(self, kind).to(codes.device))
        if freeze:
            codes = torch.where(self.frozen, self.frozen_code, codes)
        self.change = (codes - self.codes).sign_()
        self.frequency.lerp_((self.change * self.direction < 0).to(self.frequency), momentum)
        self.mean_code.lerp_(codes, momentum)
        self.direction = torch.where(self.change == 0, self.direction, self.change)
        self.codes = codes
        if freeze:
            self._freeze(threshold)

    def _freeze(self, threshold: float) -> None:
        oscillating = self.frequency > threshold
        self.frozen_code = torch.where(self.frozen | ~oscillating, self.frozen_code, self.mean_code.round())
        self.frozen |= oscillating
        if self.frozen.any():
            self.quantizer.stop_growing(self.latent)
        held = self.quantizer.values(self.frozen_code, self.latent)
        self.latent.copy_(torch.where(self.frozen, held, self.latent))

    def shares(self, threshold: float) -> tuple[float, float, float]:
        """Flipped in the last step, oscillating, frozen."""
        found = (self.change != 0, self.frequency > threshold, self.frozen)
        return tuple(share.float().mean().item() for share in found)  # type: ignore[return-value]

    def _codes(self) -> Tensor:
        return self.quantizer.codes(self.latent).to(torch.float32)


def _distinct_weights(model: nn.Module) -> Iterator[tuple[str, QuantLayer, str]]:
    """Name of the layer, layer and name of the weight, for every quantized parameter once: tied ones the first time."""
    seen = set[int]()
    for layer_name, layer in quantized_layers(model):
        for name, weight, _ in layer.quantized_weights():
            if id(weight) not in seen:
                seen.add(id(weight))
                yield layer_name, layer, name
