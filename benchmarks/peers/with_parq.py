"""torchao's PARQ prototype, which quantizes inside the optimizer: the model stays as it is.

Its uniform quantizer has ParetoQ's half-shifted levels; ternary levels come from its least-squares quantizer.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torchao.prototype.parq.optim import ProxHardQuant, ProxPARQ, QuantOptimizer
from torchao.prototype.parq.quant import LSBQuantizer, UnifQuantizer

from benchmarks.task import LEARNING_RATE, Effort

TERNARY_BITS = 1.58
ANNEALED_STEPS = Effort().steps * 6 // 10
PROX_MAPS = {
    "straight-through": ProxHardQuant,
    "annealed": lambda: ProxPARQ(anneal_start=0, anneal_end=ANNEALED_STEPS, steepness=40),
}
TIMED = ("straight-through",)


def recipes(bits: float, granularity: str) -> tuple[str, ...]:
    return tuple(PROX_MAPS)


def build(model: nn.Module, bits: float, granularity: str, scale: str, example: Tensor) -> nn.Module:
    return model


def optimizer(model: nn.Module, bits: float, granularity: str, scale: str) -> Optimizer:
    """Adam with the weights, and not the biases, quantized after each of its steps."""
    weights = [p for p in model.parameters() if p.dim() > 1]
    biases = [p for p in model.parameters() if p.dim() == 1]
    ternary = bits == TERNARY_BITS
    groups: list[dict[str, Any]] = [{"params": weights, "quant_bits": 0 if ternary else bits}, {"params": biases}]
    return QuantOptimizer(
        torch.optim.Adam(groups, lr=LEARNING_RATE),
        LSBQuantizer() if ternary else UnifQuantizer(),
        PROX_MAPS[scale](),
        quant_period=1,
        quant_per_channel=granularity == "per_channel",
    )
