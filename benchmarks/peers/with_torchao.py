"""torchao: `QATConfig` with an `IntxFakeQuantizeConfig` for the weights, which it offers per channel only.

Activations have a scale and a zero point for each row, found anew in every forward pass.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torchao.quantization import quantize_
from torchao.quantization.qat import IntxFakeQuantizeConfig, QATConfig, initialize_fake_quantizers

DTYPES: dict[float, torch.dtype] = {bits: getattr(torch, f"int{bits}") for bits in (2, 3, 4, 8)}
SETTINGS: dict[str, dict[str, Any]] = {
    "dynamic": {},
    "dynamic, asymmetric": {"is_symmetric": False},
    "range learning": {"is_dynamic": False, "range_learning": True},
}
TIMED = ("dynamic", "range learning")
SHORTLIST = ("range learning",)


def recipes(bits: float, granularity: str, activation_bits: int | None = None) -> tuple[str, ...]:
    return tuple(SETTINGS) if bits in DTYPES and granularity == "per_channel" else ()


def build(
    model: nn.Module, bits: float, granularity: str, scale: str, example: Tensor, activation_bits: int | None = None
) -> nn.Module:
    weights = IntxFakeQuantizeConfig(DTYPES[bits], granularity, **SETTINGS[scale])
    inputs = None
    if activation_bits is not None:
        inputs = IntxFakeQuantizeConfig(DTYPES[activation_bits], "per_token", is_symmetric=False)
    config = QATConfig(activation_config=inputs, weight_config=weights, step="prepare")
    quantize_(model, config, filter_fn=_can_be_quantized)
    initialize_fake_quantizers(model, (example,))
    return model


def _can_be_quantized(module: nn.Module, name: str) -> bool:
    """Its arithmetic asserts that a group has more than one element; a channel of a 1-input layer has one."""
    return isinstance(module, nn.Linear) and module.in_features > 1
