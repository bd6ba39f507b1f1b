"""What to quantize and how: small frozen values, checked when they are made.

A spec holds no tensor. Everything that depends on the numbers lives in `affine.py`.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from typing import Any, Literal, get_args

Granularity = Literal["per_tensor", "per_channel", "per_group"]
ScaleRule = Literal["minmax", "mse", "learned"]

TERNARY_BITS = 1.58  # log2(3): the three levels -1, 0, +1
SUPPORTED_BITS = (TERNARY_BITS, 2, 3, 4, 5, 6, 8)


@dataclass(frozen=True)
class QuantSpec:
    """How one tensor becomes integers: `x ~ (code - zero_point) * scale`.

    Args:
        bits: width of a code: 1.58 (three levels), 2, 3, 4, 5, 6 or 8.
        granularity: how many numbers share one scale: the whole tensor, one output channel, or
            `group_size` neighbours within an output channel.
        symmetric: the zero point is 0 and the codes are signed; otherwise the codes are unsigned and
            a zero point maps some code exactly to 0.0.
        scale: where the scale comes from: the largest magnitude, the smallest squared error, or training.
        power_of_two: round every scale up to a power of two.
        dynamic: activations only: the scale comes from the running row or group, not from calibration.
        group_size: neighbours in a row that share a scale when granularity is "per_group"; the last group of
            a row may be shorter.
        half_shift: levels at ..., -0.5, +0.5, ... times the scale instead of whole numbers: at 2 bits no
            level is wasted on 0 and both signs get the same number. Symmetric only.

    Raises:
        ValueError: a value is not supported; the message names it and what is.

    Source: Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference", equation 1. Half-shifted grid: Liu et al. 2025, "ParetoQ: Scaling Laws in
    Extremely Low-bit LLM Quantization", section 3 (stretched elastic quantization).
    """

    bits: float = 4
    granularity: Granularity = "per_channel"
    symmetric: bool = True
    scale: ScaleRule = "minmax"
    power_of_two: bool = False
    dynamic: bool = False
    group_size: int = 32
    half_shift: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.bits, bool) or self.bits not in SUPPORTED_BITS:
            supported = ", ".join(map(str, SUPPORTED_BITS))
            raise ValueError(f"bits={self.bits!r} is not supported; expected one of {supported}")
        _check_choice("granularity", self.granularity, get_args(Granularity))
        _check_choice("scale", self.scale, get_args(ScaleRule))
        for name in ("symmetric", "power_of_two", "dynamic", "half_shift"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name}={getattr(self, name)!r}; expected True or False")
        if isinstance(self.group_size, bool) or not isinstance(self.group_size, int) or self.group_size < 1:
            raise ValueError(f"group_size={self.group_size!r}; expected a whole number of at least 1")
        if self.half_shift and (not self.symmetric or self.bits == TERNARY_BITS):
            raise ValueError(
                "half_shift=True needs an even number of signed levels; expected symmetric=True, bits >= 2"
            )
        if self.dynamic and (self.bits, self.symmetric, self.scale, self.half_shift) != (8, True, "minmax", False):
            raise ValueError(
                f"dynamic=True with {self} is not supported; expected bits=8, symmetric=True, scale='minmax'"
            )
        for derived in ("levels", "quant_min", "quant_max", "shift", "storage_bits"):
            getattr(self, derived)  # torch.compile can read a cached property and cannot fill it

    @classmethod
    def activation(cls, bits: float = 8, **changes: Any) -> "QuantSpec":
        """The usual spec of activations: one scale, unsigned codes with a zero point."""
        return cls(**{"bits": bits, "granularity": "per_tensor", "symmetric": False, **changes})

    @cached_property
    def levels(self) -> int:
        """How many codes there are: 16 for 4 bits, 3 for ternary."""
        return 3 if self.bits == TERNARY_BITS else 1 << int(self.bits)

    @cached_property
    def quant_min(self) -> int:
        """The smallest code: -8 for signed 4 bits, -1 for ternary, 0 when asymmetric."""
        return -(self.levels // 2) if self.symmetric else 0

    @cached_property
    def quant_max(self) -> int:
        """The largest code: 7 for signed 4 bits, 1 for ternary, 15 for unsigned 4 bits."""
        return self.quant_min + self.levels - 1

    @cached_property
    def shift(self) -> float:
        """What is added to a code before it is scaled: 0.5 on the half-shifted grid."""
        return 0.5 if self.half_shift else 0.0

    @cached_property
    def storage_bits(self) -> int:
        """Bits of a code in a file: the next of 2, 4 and 8."""
        return {TERNARY_BITS: 2, 3: 4, 5: 8, 6: 8}.get(self.bits, int(self.bits))

    def __str__(self) -> str:
        """The values that differ from the default, as a call."""
        changed = (f for f in fields(self) if f.name == "bits" or getattr(self, f.name) != f.default)
        return "QuantSpec(" + ", ".join(f"{f.name}={getattr(self, f.name)!r}" for f in changed) + ")"


@dataclass(frozen=True)
class QATConfig:
    """Which spec goes to which tensor of a model.

    Args:
        weight: spec of every weight that can be quantized.
        activation: spec of the inputs of quantized layers, or None to leave them in float. Static activations have
            one scale for the whole tensor, whatever their granularity says: an integer accumulator adds across the
            channels. Dynamic ones have a scale for each row or, "per_group", for each group within a row.
            `QuantSpec.activation()` is the usual choice.
        overrides: glob of module names, or class of modules -> the QATConfig that applies there instead, or None to
            leave those layers in float. The first that matches wins. A class is kept by its name: "class
            torch.nn.modules.sparse.Embedding".
    """

    weight: QuantSpec = field(default_factory=QuantSpec)
    activation: QuantSpec | None = None
    overrides: Mapping[Any, "QATConfig | None"] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("weight", "activation"):
            value = getattr(self, name)
            if not isinstance(value, QuantSpec) and (name == "weight" or value is not None):
                raise ValueError(f"{name}={value!r}; expected a QuantSpec")
        if self.weight.dynamic:
            raise ValueError("weight has dynamic=True; expected False: only activations are measured as they run")
        activation = self.activation
        if activation is not None and activation.granularity != "per_group":
            granularity: Granularity = "per_channel" if activation.dynamic else "per_tensor"
            object.__setattr__(self, "activation", replace(activation, granularity=granularity))
        elif activation is not None and not activation.dynamic:
            raise ValueError(f"activation={activation} is not supported; expected one scale, or dynamic=True")
        overrides = {class_key(key) if isinstance(key, type) else key: value for key, value in self.overrides.items()}
        object.__setattr__(self, "overrides", overrides)
        for pattern, override in overrides.items():
            if not isinstance(pattern, str) or not (override is None or isinstance(override, QATConfig)):
                raise ValueError(
                    f"overrides has {pattern!r}: {override!r}; expected a glob of names or a class: a QATConfig or None"
                )

    def as_dict(self) -> dict[str, Any]:
        """For JSON; `from_dict` reads it back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "QATConfig":
        """Undo `as_dict`.

        Raises:
            ValueError: a name or a value is not one of a config.
        """
        try:
            return cls(
                weight=QuantSpec(**values["weight"]),
                activation=None if values["activation"] is None else QuantSpec(**values["activation"]),
                overrides={
                    pattern: None if override is None else cls.from_dict(override)
                    for pattern, override in values["overrides"].items()
                },
            )
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{values!r} is not a QATConfig: {error}; expected what as_dict() gives") from error


def class_key(kind: type) -> str:
    """How `overrides` names a class of modules."""
    return f"class {kind.__module__}.{kind.__qualname__}"


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name}={value!r} is not supported; expected one of {', '.join(choices)}")
