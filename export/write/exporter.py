"""export_onnx: trace, prove, write."""

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from export.read import receipt
from export.read.codes import code_arrays
from export.read.compare import ParityError, ParityReport, compare, default_tolerance
from export.read.files import write, writing
from export.read.kernels import Kernels, expected_kernels, find_kernels
from export.read.receipt import Sample
from export.write.matmul_nbits import QuickKernel, as_settings, quick_kernels
from export.write.parity import parity_of
from export.write.qdq import FIRST_OPSET, INT2_OPSET, LAST_OPSET, to_qdq
from export.write.stand_ins import bias_codes, code_origins
from export.write.tensors import as_inputs, to_numpy, torch_outputs
from qat_core import convert
from qat_core.layers import QuantLayer, quantized_layers

SAMPLE_ATTEMPTS = 8


def export_onnx(
    model: nn.Module,
    example_inputs: Tensor | Sequence[Tensor],
    path: str | os.PathLike[str],
    *,
    flavor: str = "qdq",
    storage: str | None = None,
    opset_version: int | None = None,
    dynamic_batch: bool = True,
) -> ParityReport:
    """Write a model as ONNX with QuantizeLinear / DequantizeLinear nodes, and prove that it answers the same.

    Args:
        model: prepared or converted; it is left as it is.
        example_inputs: one tensor, or one for each input of the model; the first dimension is the batch.
        path: where the file goes. It is written only after its parity has been proved.
        flavor: "qdq", standard operators only; or "ort", in which Linear layers are com.microsoft::MatMulNBits, for
            speed in onnxruntime: with float32 activations, or with 8-bit ones for layers trained with dynamic per-group
            activations. Layers that MatMulNBits has no quick kernel for stay as in "qdq".
        storage: "int8" keeps narrower codes in INT8, for integer kernels where activations are quantized with static
            scales; None is the narrowest type there is.
        opset_version: 21 to 25. None is 21, the first with INT4, or 25, the first with INT2, for a model that
            stores codes of two bits; weights of layers with static activations take INT4.
        dynamic_batch: let the file take any batch size.

    Returns:
        onnxruntime against PyTorch on the example inputs, at every optimization level; with flavor "ort" or storage
        "int8" also the quick kernels that onnxruntime was seen to run.

    Raises:
        ValueError: the model was not prepared, has quantizers that are switched off, answers otherwise while it trains
            or something else than tensors, is not float32, cannot be traced, takes one size of batch only or has no
            layer that the flavor is for, or an argument is not supported.
        FileError: the path cannot be written.
        ParityError: the codes or the outputs differ; nothing is written.
        KernelError: this onnxruntime does not run the quick kernels that the flavor or the storage is for; nothing is
            written.
    """
    _check_arguments(flavor, storage, opset_version)
    inputs = as_inputs(example_inputs)
    _check_mode(model)
    converted = convert(model).cpu()
    _check_precision(converted)
    quick, slow = quick_kernels(converted) if flavor == "ort" else ({}, {})
    if flavor == "ort" and not quick:
        reasons = "; ".join(f"{name or 'the model'}: {reason}" for name, reason in slow.items())
        raise ValueError(f"flavor='ort' has a quick kernel for no layer of this model; expected a Linear: {reasons}")
    if opset_version is None:
        opset_version = INT2_OPSET if storage is None and _has_two_bits(converted, quick) else FIRST_OPSET

    expected = torch_outputs(converted, inputs)
    proto = to_qdq(
        converted,
        inputs,
        len(expected),
        opset_version=opset_version,
        int8_storage=storage == "int8",
        dynamic_batch=dynamic_batch,
        quick=quick,
    )
    assert_same_codes(proto, converted, quick)
    with writing(path) as target:
        write(proto, target)
        report = parity_of(converted, proto, target, inputs, expected)
        report.raise_if_broken()
        if flavor == "ort" or storage == "int8":
            report = replace(report, kernels=_quick_kernels_of(proto, target, slow))
        settings: dict[str, Any] = {"flavor": flavor, "storage": storage, "opset_version": opset_version}
        if flavor == "ort":
            settings["kernels"] = as_settings(quick, slow)
        promised = report.kernels.expected if report.kernels else {}
        _attach_receipt(proto, target, converted, inputs, [default_tolerance(y) for y in expected], settings, promised)
        write(proto, target)
    return report


def _check_arguments(flavor: str, storage: str | None, opset_version: int | None) -> None:
    if flavor not in ("qdq", "ort"):
        raise ValueError(f"flavor={flavor!r} is not supported; expected 'qdq' or 'ort'")
    if storage not in (None, "int8"):
        raise ValueError(f"storage={storage!r} is not supported; expected None or 'int8'")
    if opset_version is not None and opset_version not in range(FIRST_OPSET, LAST_OPSET + 1):
        raise ValueError(
            f"opset_version={opset_version!r} is not supported; expected {FIRST_OPSET}, the first with INT4, "
            f"to {LAST_OPSET}"
        )


def _quick_kernels_of(proto: onnx.ModelProto, target: Path, slow: Mapping[str, str]) -> Kernels:
    """The kernels that onnxruntime should run, and runs; `slow` knows why some layers have none.

    Raises:
        KernelError: one is missing.
    """
    promised, in_float = expected_kernels(proto)
    quick = {node.rpartition("/")[0] for node in promised}
    reasons = {name: reason for name, reason in {**in_float, **slow}.items() if name not in quick}
    kernels = find_kernels(target, promised, reasons)
    kernels.raise_if_missing()
    return kernels


def _check_mode(model: nn.Module) -> None:
    """A file answers as the model does in evaluation mode, so that has to be its mode where it makes a difference."""
    for name, module in model.named_modules():
        drops = isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0
        if module.training and (drops or isinstance(module, nn.modules.batchnorm._BatchNorm)):
            raise ValueError(
                f"the model is in training mode, where {type(module).__name__} {name!r} answers otherwise; expected "
                "model.eval()"
            )


def _check_precision(converted: nn.Module) -> None:
    for name, layer in quantized_layers(converted):
        for part, weight, _ in layer.quantized_weights():
            if weight.dtype != torch.float32:
                raise ValueError(
                    f"the {part} of layer {name or 'model'!r} is {weight.dtype}; expected torch.float32: model.float()"
                )


def _has_two_bits(converted: nn.Module, quick: Mapping[str, QuickKernel]) -> bool:
    """Would any weight be stored as INT2?"""
    return any(
        quantizer.spec.storage_bits == 2
        for name, layer in quantized_layers(converted)
        if name not in quick
        if layer.input_quantizer is None or layer.input_quantizer.spec.dynamic
        for _, _, quantizer in layer.quantized_weights()
    )


def assert_same_codes(proto: onnx.ModelProto, converted: nn.Module, quick: Mapping[str, QuickKernel]) -> None:
    """The codes in the file are the codes of the forward pass, weight by weight and bias by bias.

    Layers in `quick` hold them as their kernel does.

    Raises:
        ParityError: they are not; the message names the layer.
    """
    stored, origins = dict(code_arrays(proto)), code_origins(converted)
    tied: dict[nn.Module, str] = {}
    for name, layer in quantized_layers(converted):
        prefix = f"{name}." if name else ""
        expected = {
            tied.setdefault(quantizer, f"{prefix}{part}"): (
                quick[name].codes(quantizer.codes(weight), quantizer.spec)
                if name in quick
                else quantizer.codes(weight).short() + origins[quantizer]
            )
            for part, weight, quantizer in layer.quantized_weights()
        }
        if layer.has_integer_accumulator() and layer.bias is not None:
            expected[f"{prefix}bias"] = bias_codes(layer)[0]
        for initializer, codes in expected.items():
            found = stored.get(initializer)
            if found is None or not np.array_equal(_unpadded(found, codes), to_numpy(codes)):
                raise ParityError(
                    f"the codes {initializer!r} of layer {name or 'model'!r} in the file are not those of the forward "
                    "pass"
                )


def _unpadded(found: np.ndarray, codes: Tensor) -> np.ndarray:
    """Groups (rows, groups, group_size) or rows (rows, elements) back in the shape of the tensor."""
    rows = found.reshape(found.shape[0], -1)[:, : codes.numel() // codes.shape[0]]
    return rows.reshape(codes.shape)


def _attach_receipt(
    proto: onnx.ModelProto,
    target: Path,
    converted: nn.Module,
    inputs: Sequence[Tensor],
    tolerances: Sequence[float],
    settings: dict[str, Any],
    kernels: dict[str, str],
) -> None:
    """Promise a sample that no rounding tie decides, on this machine at least."""
    whole = any(value.type.tensor_type.shape.dim[0].dim_value for value in proto.graph.input)
    for first_row in range(SAMPLE_ATTEMPTS):
        sample = Sample.of([to_numpy(t) for t in inputs], first_row, whole)
        outputs = torch_outputs(converted, [torch.from_numpy(x) for x in sample.arrays()])
        if compare(target, sample.arrays(), outputs, tolerances).ok:
            break
    receipt.attach(
        proto,
        sample,
        outputs,
        tolerances,
        versions={
            "python": platform.python_version(),
            "torch": torch.__version__,
            "onnx": onnx.__version__,
            "onnxruntime": onnxruntime.__version__,
        },
        settings={**settings, "layers": _layer_settings(converted)},
        kernels=kernels,
    )


def _layer_settings(converted: nn.Module) -> list[dict[str, Any]]:
    """The specs of all layers, and the names of the layers that share them."""
    shared: dict[str, dict[str, Any]] = {}
    for name, layer in quantized_layers(converted):
        specs = _specs(layer)
        shared.setdefault(repr(specs), {"names": [], **specs})["names"].append(name)
    return list(shared.values())


def _specs(layer: QuantLayer) -> dict[str, dict[str, Any]]:
    """What differs from QuantSpec's defaults, for the weights of a layer and for its input."""
    specs = {"weight": layer.quantized_weights()[0][2].spec}
    if layer.input_quantizer is not None:
        specs["activation"] = layer.input_quantizer.spec
    return {
        name: {
            f.name: getattr(spec, f.name)
            for f in fields(spec)
            if f.name == "bits" or getattr(spec, f.name) != f.default
        }
        for name, spec in specs.items()
    }
