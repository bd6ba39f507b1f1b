"""ModelOpt: `mtq.quantize` with a weight-only configuration.

It calibrates a weight's range once, before training; "dynamic" measures the range in every forward pass instead. Its
learned scales (LSQ) are for NVFP4 alone. At 2 bits the narrow range has three levels: the ternary rows.
"""

from typing import Any

import modelopt.torch.quantization as mtq
from torch import Tensor, nn

TERNARY_BITS = 1.58
AXES = {"per_tensor": None, "per_channel": 0}
SETTINGS: dict[str, tuple[dict[str, Any], str]] = {
    "max": ({}, "max"),
    "mse": ({}, "mse"),
    "dynamic": ({"type": "dynamic"}, "max"),
}
TIMED = ("max", "dynamic")


def recipes(bits: float, granularity: str) -> tuple[str, ...]:
    return tuple(SETTINGS)


def build(model: nn.Module, bits: float, granularity: str, scale: str, example: Tensor) -> nn.Module:
    ternary = bits == TERNARY_BITS
    extra, algorithm = SETTINGS[scale]
    weights = {"num_bits": 2 if ternary else bits, "axis": AXES[granularity], "narrow_range": ternary, **extra}
    entries = [
        {"quantizer_name": "*", "enable": False},
        {"quantizer_name": "*weight_quantizer", "cfg": weights, "enable": True},
    ]
    return mtq.quantize(model, {"quant_cfg": entries, "algorithm": algorithm}, lambda m: m(example))
