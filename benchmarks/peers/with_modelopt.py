"""ModelOpt: `mtq.quantize` with a weight-only configuration.

It calibrates a weight's range once, before training; "dynamic" measures the range in every forward pass instead. Its
learned scales (LSQ) are for NVFP4 alone. At 2 bits the narrow range has three levels: the ternary rows.
"""

from pathlib import Path
from typing import Any

import modelopt.torch.quantization as mtq
import torch
from torch import Tensor, nn

TERNARY_BITS = 1.58
AXES = {"per_tensor": None, "per_channel": 0}
SETTINGS: dict[str, tuple[dict[str, Any], str]] = {
    "max": ({}, "max"),
    "mse": ({}, "mse"),
    "dynamic": ({"type": "dynamic"}, "max"),
}
TIMED = ("max", "dynamic")
SHORTLIST = ("dynamic",)


def recipes(bits: float, granularity: str, activation_bits: int | None = None) -> tuple[str, ...]:
    return tuple(SETTINGS)


def build(
    model: nn.Module, bits: float, granularity: str, scale: str, example: Tensor, activation_bits: int | None = None
) -> nn.Module:
    ternary = bits == TERNARY_BITS
    extra, algorithm = SETTINGS[scale]
    weights = {"num_bits": 2 if ternary else bits, "axis": AXES[granularity], "narrow_range": ternary, **extra}
    entries: list[dict[str, Any]] = [
        {"quantizer_name": "*", "enable": False},
        {"quantizer_name": "*weight_quantizer", "cfg": weights, "enable": True},
    ]
    if activation_bits is not None:
        inputs = {"num_bits": activation_bits, "axis": None, **extra}
        entries.append({"quantizer_name": "*input_quantizer", "cfg": inputs, "enable": True})
    return mtq.quantize(model, {"quant_cfg": entries, "algorithm": algorithm}, lambda m: m(example))


def forms(bits: int, activation_bits: int | None) -> tuple[str, ...]:
    return ("",)


def to_file(
    model: nn.Module, bits: int, activation_bits: int | None, form: str, example: Tensor, path: Path
) -> nn.Module:
    entries: list[dict[str, Any]] = [
        {"quantizer_name": "*", "enable": False},
        {"quantizer_name": "*weight_quantizer", "cfg": {"num_bits": bits, "axis": 0}, "enable": True},
    ]
    if activation_bits is not None:
        settings = {"num_bits": activation_bits, "axis": None}
        entries.append({"quantizer_name": "*input_quantizer", "cfg": settings, "enable": True})
    quantized = mtq.quantize(model, {"quant_cfg": entries, "algorithm": "max"}, lambda m: m(example))
    torch.onnx.export(
        quantized,
        (example,),
        path,
        input_names=["input"],
        output_names=["output"],
        dynamic_axes={"input": {0: "batch"}, "output": {0: "batch"}},
        opset_version=20,
        dynamo=False,
    )
    return quantized
