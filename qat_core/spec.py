"""What to quantize and how: small frozen values, checked when they are made.

A spec holds no tensor. Everything that depends on the numbers lives in `affine.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Literal, get_args

Granularity = Literal["per_tensor", "per_channel", "per_group"]
ScaleRule = Literal["minmax", "mse", "learned"]

TERNARY_BITS = 1.58  # log2(3): the three levels -1, 0, +1
SUPPORTED_BITS = (TERNARY_BITS, 2, 3, 4, 8)


@dataclass(frozen=True)
class QuantSpec:
    """How one tensor becomes integers: `x ~ (code - zero_point) * scale`.

    Args:
        bits: width of a code: 1.58 (three levels), 2, 3, 4 or 8.
        granularity: how many numbers share one scale: the whole tensor, one output channel, or
            `group_size` neighbours within an output channel.
        symmetric: the zero point is 0 and the codes are signed; otherwise the codes are unsigned and
            a zero point maps some code exactly to 0.0.
        scale: where the scale comes from: the largest magnitude, the smallest squared error, or training.
        power_of_two: round every scale up to a power of two.
        dynamic: activations only: the scale comes from the running row or group, not from calibration.
        group_size: elements that share a scale when granularity is "per_group".

    Raises:
        ValueError: a value is not supported; the message names it and what is.

    Source: Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference", equation 1.
    """

    bits: float = 4
    granularity: Granularity = "per_channel"
    symmetric: bool = True
    scale: ScaleRule = "minmax"
    power_of_two: bool = False
    dynamic: bool = False
    group_size: int = 32

    def __post_init__(self) -> None:
        if isinstance(self.bits, bool) or self.bits not in SUPPORTED_BITS:
            supported = ", ".join(map(str, SUPPORTED_BITS))
            raise ValueError(f"bits={self.bits!r} is not supported; expected one of {supported}")
        _check_choice("granularity", self.granularity, get_args(Granularity))
        _check_choice("scale", self.scale, get_args(ScaleRule))
        for name in ("symmetric", "power_of_two", "dynamic"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name}={getattr(self, name)!r}; expected True or False")
        if isinstance(self.group_size, bool) or not isinstance(self.group_size, int) or self.group_size < 1:
            raise ValueError(f"group_size={self.group_size!r}; expected a whole number of at least 1")

    @property
    def levels(self) -> int:
        """How many codes there are: 16 for 4 bits, 3 for ternary."""
        return 3 if self.bits == TERNARY_BITS else 1 << int(self.bits)

    @property
    def quant_min(self) -> int:
        """The smallest code: -8 for signed 4 bits, -1 for ternary, 0 when asymmetric."""
        return -(self.levels // 2) if self.symmetric else 0

    @property
    def quant_max(self) -> int:
        """The largest code: 7 for signed 4 bits, 1 for ternary, 15 for unsigned 4 bits."""
        return self.quant_min + self.levels - 1

    def __str__(self) -> str:
        """The values that differ from the default, as a call."""
        changed = (f for f in fields(self) if f.name == "bits" or getattr(self, f.name) != f.default)
        return "QuantSpec(" + ", ".join(f"{f.name}={getattr(self, f.name)!r}" for f in changed) + ")"


@dataclass(frozen=True)
class QATConfig:
    """Which spec goes to which tensor of a model.

    Args:
        weight: spec of every weight that can be quantized.
        activation: spec of the inputs of quantized layers, or None to leave them in float.
        overrides: glob of module names -> the QATConfig that applies there instead, or None to leave
            those layers in float. The first glob that matches wins.
    """

    weight: QuantSpec = field(default_factory=QuantSpec)
    activation: QuantSpec | None = None
    overrides: Mapping[str, "QATConfig | None"] = field(default_factory=dict)


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name}={value!r} is not supported; expected one of {', '.join(choices)}")
