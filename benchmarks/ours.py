"""This library as a contender: which recipe goes to which row is decided here and nowhere else."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from qat_core import Oscillations, QATConfig, QuantSpec, Schedule, annealed_threshold, calibrate, convert, prepare

TERNARY_BITS = 1.58
WEIGHTS: dict[str, dict[str, Any]] = {
    "min-max": {"scale": "minmax"},
    "learned": {"scale": "learned"},
    "learned, half-shifted": {"scale": "learned", "half_shift": True},
    "learned, oscillations frozen": {"scale": "learned"},
    "learned, half-shifted, oscillations frozen": {"scale": "learned", "half_shift": True},
    "learned, scheduled": {"scale": "learned"},
    "min-max + 8-bit activations": {"scale": "minmax"},
    "learned + 8-bit activations": {"scale": "learned"},
}
ACTIVATIONS = dict.fromkeys((name for name in WEIGHTS if "activations" in name), 8)
TIMED = (
    "min-max",
    "learned",
    "learned, oscillations frozen",
    "min-max + 8-bit activations",
    "learned + 8-bit activations",
)
SHORTLIST = (
    "learned",
    "learned, oscillations frozen",
    "learned, half-shifted, oscillations frozen",
    "learned, scheduled",
)
POWERS = "powers of two"
FORMS: dict[str, dict[str, Any]] = {
    "qdq": {},
    "ort": {"flavor": "ort"},
    "int8": {"storage": "int8"},
    f"qdq, {POWERS}": {},
    f"int8, {POWERS}": {"storage": "int8"},
}


def recipes(bits: float, granularity: str, activation_bits: int | None = None) -> tuple[str, ...]:
    """Three levels have no half-shifted grid."""
    weight_only = (name for name in WEIGHTS if name not in ACTIVATIONS)
    return tuple(name for name in weight_only if bits != TERNARY_BITS or "half-shifted" not in name)


def build(
    model: nn.Module, bits: float, granularity: str, scale: str, example: Tensor, activation_bits: int | None = None
) -> nn.Module:
    weight = QuantSpec(bits=bits, granularity=granularity, **WEIGHTS[scale])  # type: ignore[arg-type]
    activation_bits = ACTIVATIONS.get(scale, activation_bits)
    activation = None if activation_bits is None else _activation(activation_bits, WEIGHTS[scale]["scale"])
    model = prepare(model, QATConfig(weight=weight, activation=activation))
    return calibrate(model, [example]) if activation else model


def _activation(bits: int, scale: Any) -> QuantSpec:
    """With scales learned as the weights' are, but at 8 bits, where their range did better on tasks to choose on."""
    return QuantSpec.activation(bits=bits, scale="minmax" if bits == 8 else scale)


def after_step(model: nn.Module, scale: str, steps: int) -> Callable[[], object]:
    """Holding weights that swing between two codes, or all of the schedule that the library advises."""
    if "scheduled" in scale:
        return Schedule.over(model, steps).step
    if "oscillations frozen" not in scale:
        return lambda: None
    return Oscillations(model, annealed_threshold(steps), freeze=True).step


def forms(bits: int, activation_bits: int | None) -> tuple[str, ...]:
    """MatMulNBits where activations stay in float, codes in INT8 where integer kernels multiply narrower ones."""
    if activation_bits is None:
        return ("qdq", "ort")
    return tuple(form for form in FORMS if form != "ort" and (bits < 8 or "int8" not in form))


def to_file(
    model: nn.Module, bits: int, activation_bits: int | None, form: str, example: Tensor, path: Path
) -> nn.Module:
    powers = POWERS in form
    activation = None if activation_bits is None else QuantSpec.activation(bits=activation_bits, power_of_two=powers)
    prepared = prepare(model, QATConfig(QuantSpec(bits=bits, power_of_two=powers), activation)).eval()
    if activation:
        calibrate(prepared, [example])
    from export import export_onnx

    export_onnx(prepared, example, path, **FORMS[form])
    return convert(prepared)
