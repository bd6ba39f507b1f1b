"""Brevitas: its weight quantizers, put in place by its own `layerwise_quantize`.

At 2 bits its default, the narrow range, has three levels only; that is how it takes part in the ternary rows.
"""

from pathlib import Path
from typing import Any

import torch
from brevitas import nn as qnn
from brevitas.export import export_onnx_qcdq
from brevitas.graph.calibrate import calibration_mode
from brevitas.graph.quantize import layerwise_quantize
from brevitas.quant import fixed_point, scaled_int, shifted_scaled_int
from brevitas.quant.ternary import SignedTernaryWeightPerTensorConst
from torch import Tensor, nn

TERNARY_BITS = 1.58
NAMES = {"per_tensor": "Int8WeightPerTensorFloat", "per_channel": "Int8WeightPerChannelFloat"}
LEARNED = {"weight_scaling_impl_type": "parameter_from_stats"}
LEARNED_FROM_MEAN = {**LEARNED, "weight_scaling_stats_op": "ave"}
FULL_RANGE = {"weight_narrow_range": False}
SETTINGS: dict[str, dict[str, Any]] = {
    "stats": {},
    "stats, full range": FULL_RANGE,
    "learned": LEARNED,
    "learned, full range": {**LEARNED, **FULL_RANGE},
    "learned from the mean": LEARNED_FROM_MEAN,
    "learned from the mean, full range": {**LEARNED_FROM_MEAN, **FULL_RANGE},
    "learned from MSE": {},
    "learned from MSE, full range": FULL_RANGE,
}
CONSTANT = "SignedTernaryWeightPerTensorConst"
TIMED = ("stats", "learned, full range")
SHORTLIST = ("learned", "learned, full range", "learned from the mean", "learned from the mean, full range")
POWERS = "powers of two"


def recipes(bits: float, granularity: str, activation_bits: int | None = None) -> tuple[str, ...]:
    narrow = tuple(name for name in SETTINGS if "full range" not in name)
    full = tuple(name for name in SETTINGS if "full range" in name)
    if bits == TERNARY_BITS:
        return (*narrow, CONSTANT) if granularity == "per_tensor" else narrow
    return ("stats", *full)


def build(
    model: nn.Module, bits: float, granularity: str, scale: str, example: Tensor, activation_bits: int | None = None
) -> nn.Module:
    """Scales of activations are learned, from what a calibration on the example says."""
    settings: dict[str, Any]
    if scale == CONSTANT:
        settings = {"weight_quant": SignedTernaryWeightPerTensorConst}
    else:
        suffix = "MSE" if "MSE" in scale else ""
        settings = {
            "weight_quant": getattr(scaled_int, NAMES[granularity] + suffix),
            "weight_bit_width": 2 if bits == TERNARY_BITS else bits,
            **SETTINGS[scale],
        }
    if activation_bits is not None:
        inputs = shifted_scaled_int.ShiftedUint8ActPerTensorFloat
        settings |= {"input_quant": inputs, "input_bit_width": activation_bits}
    layers = {nn.Linear: qnn.QuantLinear, nn.Conv2d: qnn.QuantConv2d}
    model = layerwise_quantize(model, {kind: (quantized, settings) for kind, quantized in layers.items()})
    if activation_bits is not None:
        _calibrate(model, example)
    return model


def _calibrate(model: nn.Module, example: Tensor) -> None:
    with torch.no_grad(), calibration_mode(model):
        model(example)


def forms(bits: int, activation_bits: int | None) -> tuple[str, ...]:
    return ("QCDQ",) if activation_bits is None else ("QCDQ", f"QCDQ, {POWERS}")


def to_file(
    model: nn.Module, bits: int, activation_bits: int | None, form: str, example: Tensor, path: Path
) -> nn.Module:
    """With the older of torch's exporters, since Brevitas has no form for quantized biases in the newer one."""
    powers = POWERS in form
    weights = fixed_point.Int8WeightPerChannelFixedPoint if powers else scaled_int.Int8WeightPerChannelFloat
    settings: dict[str, Any] = {"weight_quant": weights, "weight_bit_width": bits, **FULL_RANGE}
    if activation_bits is not None:
        activations = fixed_point.Int8ActPerTensorFixedPoint if powers else scaled_int.Int8ActPerTensorFloat
        settings |= {"input_quant": activations, "input_bit_width": activation_bits, "bias_quant": scaled_int.Int32Bias}
    quantized = layerwise_quantize(model, {nn.Linear: (qnn.QuantLinear, settings)}).eval()
    _calibrate(quantized, example)
    export_onnx_qcdq(
        quantized,
        args=example,
        export_path=str(path),
        input_names=["input"],
        output_names=["output"],
        dynamic_axes={"input": {0: "batch"}, "output": {0: "batch"}},
        opset_version=20,
        dynamo=False,
    )
    return quantized
