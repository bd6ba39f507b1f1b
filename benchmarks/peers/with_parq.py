"""torchao's PARQ prototype, which quantizes inside the optimizer: the model stays as it is.

Its uniform quantizer has ParetoQ's half-shifted levels; ternary levels come from its least-squares quantizer.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer
from torchao.prototype.parq.optim import ProxHardQuant, ProxPARQ, QuantOptimizer
from torchao.prototype.parq.quant import LSBQuantizer, UnifQuantizer

TERNARY_BITS = 1.58
PROX_MAPS: dict[str, Callable[[int], Any]] = {
    "straight-through": lambda steps: ProxHardQuant(),
    "annealed": lambda steps: ProxPARQ(anneal_start=0, anneal_end=steps * 6 // 10, steepness=40),
}
TIMED = ("straight-through",)
SHORTLIST = ("straight-through", "annealed")


def recipes(bits: float, granularity: str, activation_bits: int | None = None) -> tuple[str, ...]:
    """It has no activations: these never pass through an optimizer."""
    return tuple(PROX_MAPS) if activation_bits is None else ()


def build(
    model: nn.Module, bits: float, granularity: str, scale: str, example: Tensor, activation_bits: int | None = None
) -> nn.Module:
    return model


def optimizer(
    model: nn.Module, bits: float, granularity: str, scale: str, steps: int, base: Callable[..., Optimizer]
) -> Optimizer:
    """The base with the weights, and not the biases, quantized after each of its steps."""
    weights = [p for p in model.parameters() if p.dim() > 1]
    biases = [p for p in model.parameters() if p.dim() == 1]
    ternary = bits == TERNARY_BITS
    groups: list[dict[str, Any]] = [{"params": weights, "quant_bits": 0 if ternary else bits}, {"params": biases}]
    return QuantOptimizer(
        base(groups),
        LSBQuantizer() if ternary else UnifQuantizer(),
        PROX_MAPS[scale](steps),
        quant_period=1,
        quant_per_channel=granularity == "per_channel",
    )
