"""AIMET: `QuantizationSimModel` with its default configuration, and `aimet_torch.onnx.export`; exported files only.

Its import needs torchvision, whose compiled half comes for one kind of torch and does not load beside another. AIMET
uses none of it here, but torchvision wants to see the operators that it would have brought.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

if not torch.cuda.is_available():
    _absent = torch.library.Library("torchvision", "DEF")
    for _operator in ("nms", "qnms"):
        _absent.define(f"{_operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

import aimet_torch.onnx
from aimet_torch import QuantizationSimModel
from aimet_torch.v2.nn import BaseQuantizationMixin


def forms(bits: int, activation_bits: int | None) -> tuple[str, ...]:
    return ("",)


def to_file(
    model: nn.Module, bits: int, activation_bits: int | None, form: str, example: Tensor, path: Path
) -> nn.Module:
    simulated = QuantizationSimModel(model, example, default_param_bw=bits, default_output_bw=activation_bits or 8)
    if activation_bits is None:
        for module in simulated.model.modules():
            if isinstance(module, BaseQuantizationMixin):
                module._remove_activation_quantizers()
    simulated.compute_encodings(lambda quantized: quantized(example))
    aimet_torch.onnx.export(
        simulated.model,
        (example,),
        str(path),
        input_names=["input"],
        output_names=["output"],
        dynamic_axes={"input": {0: "batch"}, "output": {0: "batch"}},
        opset_version=21,
        dynamo=False,
        export_int32_bias=activation_bits is not None,
        prequantize_constants=True,
    )
    return simulated.model
