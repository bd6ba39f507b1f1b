"""This library as a contender: which recipe goes to which row is decided here and nowhere else."""

from typing import Any

from torch import Tensor, nn

from qat_core import QATConfig, QuantSpec, calibrate, prepare

RECIPES: dict[tuple[float, str], tuple[str, ...]] = {
    (1.58, "per_tensor"): ("min-max", "learned"),
    (1.58, "per_channel"): ("min-max", "learned"),
    (2, "per_tensor"): ("min-max", "learned", "learned, half-shifted"),
    (2, "per_channel"): ("min-max", "learned", "learned, half-shifted"),
    (3, "per_tensor"): ("min-max", "learned", "learned, half-shifted"),
    (3, "per_channel"): ("min-max", "learned", "learned, half-shifted"),
    (4, "per_tensor"): ("min-max", "learned"),
    (4, "per_channel"): ("min-max", "learned"),
}
WEIGHTS: dict[str, dict[str, Any]] = {
    "min-max": {"scale": "minmax"},
    "learned": {"scale": "learned"},
    "learned, half-shifted": {"scale": "learned", "half_shift": True},
    "learned + 8-bit activations": {"scale": "learned"},
}
ACTIVATIONS = {"learned + 8-bit activations": QuantSpec.activation(bits=8)}
TIMED = ("min-max", "learned", "learned + 8-bit activations")


def recipes(bits: float, granularity: str) -> tuple[str, ...]:
    return RECIPES.get((bits, granularity), ())


def build(model: nn.Module, bits: float, granularity: str, scale: str, example: Tensor) -> nn.Module:
    weight = QuantSpec(bits=bits, granularity=granularity, **WEIGHTS[scale])  # type: ignore[arg-type]
    model = prepare(model, QATConfig(weight=weight, activation=ACTIVATIONS.get(scale)))
    return calibrate(model, [example]) if scale in ACTIVATIONS else model
