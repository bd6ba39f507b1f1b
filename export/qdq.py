"""From a prepared model to an ONNX file with integer initializers and DequantizeLinear nodes.

While exporting, and only then, each weight quantizer steps aside for a module that holds the integer codes of
the forward pass and calls one marker operator. torch.export carries the marker through untouched, and one line
of onnxscript turns it into DequantizeLinear. What is left to do is to pack the codes.
"""

import copy
import logging
import os
import platform
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import torch
from onnxscript import opset21
from torch import Tensor, nn

from export import receipt
from export.audit import code_arrays
from export.files import save
from export.parity import TOLERANCE, ParityError, ParityReport, compare, output_range, to_numpy, torch_outputs
from qat_core import FakeQuantize, QuantSpec, convert
from qat_core.prepare import quantized_layers

OPSET = 21  # the first with INT4
SAMPLE_ROWS = 8
STORED_AS = {  # (signed, 8 bits wide) -> the type of the codes' initializer
    (True, False): (ir.DataType.INT4, ml_dtypes.int4),
    (True, True): (ir.DataType.INT8, np.int8),
    (False, False): (ir.DataType.UINT4, ml_dtypes.uint4),
    (False, True): (ir.DataType.UINT8, np.uint8),
}


def export_onnx(
    model: nn.Module,
    example_inputs: Tensor | Sequence[Tensor],
    path: str | os.PathLike[str],
    *,
    flavor: str = "qdq",
    opset_version: int | None = None,
    dynamic_batch: bool = True,
) -> ParityReport:
    """Write a model as ONNX with QuantizeLinear / DequantizeLinear nodes, and prove that it answers the same.

    Args:
        model: prepared or converted; it is left as it is.
        example_inputs: one tensor, or one for each input of the model; the first dimension is the batch.
        path: where the file goes. It is written only after its parity has been proved.
        flavor: "qdq", standard operators only.
        opset_version: at least 21, the first with INT4; None is 21.
        dynamic_batch: let the file take any batch size.

    Returns:
        onnxruntime against PyTorch on the example inputs, at every optimization level.

    Raises:
        ValueError: the model was not prepared, or an argument is not supported.
        FileError: the path cannot be written.
        ParityError: the codes or the outputs differ; nothing is written.
    """
    if flavor != "qdq":
        raise ValueError(f"flavor={flavor!r} is not supported; expected 'qdq'")
    opset_version = OPSET if opset_version is None else opset_version
    if opset_version != OPSET:
        raise ValueError(f"opset_version={opset_version!r} is not supported; expected {OPSET}")
    inputs = (example_inputs,) if isinstance(example_inputs, Tensor) else tuple(example_inputs)
    inputs = tuple(t.detach().cpu() for t in inputs)

    converted = convert(model).cpu()
    expected = torch_outputs(converted, inputs)
    exporting, specs = _with_markers(converted)
    program = _torch_to_onnx(exporting, inputs, len(expected), opset_version, dynamic_batch)
    _store_codes(program, specs)
    proto = ir.to_proto(program)
    _assert_same_codes(proto, converted)

    arrays = [to_numpy(t) for t in inputs]
    report = compare(proto.SerializeToString(), arrays, expected)
    report.raise_if_broken()
    sample = tuple(_spread_rows(t) for t in inputs)
    sample_outputs = torch_outputs(converted, sample)
    receipt.attach(
        proto,
        inputs=[to_numpy(t) for t in sample],
        outputs=sample_outputs,
        tolerance=TOLERANCE * max(output_range(e.astype(np.float64)) for e in expected),
        versions={
            "python": platform.python_version(),
            "torch": torch.__version__,
            "onnx": onnx.__version__,
            "onnxruntime": onnxruntime.__version__,
        },
        settings={
            "flavor": flavor,
            "opset_version": opset_version,
            "weights": {name: asdict(layer.weight_quantizer.spec) for name, layer in quantized_layers(converted)},
        },
    )
    save(proto, path)
    return report


def _spread_rows(batch: Tensor) -> Tensor:
    """A few rows from all over a batch."""
    rows = torch.linspace(0, len(batch) - 1, min(SAMPLE_ROWS, len(batch))).long()
    return batch[rows]


@torch.library.custom_op("qat::dequantize", mutates_args=())
def _dequantize_marker(codes: Tensor, scale: Tensor, zero_point: Tensor, axis: int) -> Tensor:
    """Stands for DequantizeLinear while exporting; it is never run on numbers."""
    raise NotImplementedError("qat::dequantize exists only while exporting")


@_dequantize_marker.register_fake
def _(codes: Tensor, scale: Tensor, zero_point: Tensor, axis: int) -> Tensor:
    return torch.empty_like(codes, dtype=scale.dtype)


def _dequantize_onnx(codes: Any, scale: Any, zero_point: Any, axis: int) -> Any:
    return opset21.DequantizeLinear(codes, scale, zero_point, axis=axis)


class _StoredCodes(nn.Module):
    """What a weight quantizer is while exporting: the codes of the forward pass and their scale.

    The zero point is written even where it is 0: without it onnxruntime's integer kernels never appear.
    """

    def __init__(self, quantizer: FakeQuantize, weight: Tensor, axis: int) -> None:
        super().__init__()
        scale, zero_point = quantizer.source(weight)
        codes = quantizer.codes(weight)
        scale = scale.flatten() if scale.numel() > 1 or scale.dim() else scale
        zero_point = torch.zeros_like(scale) if zero_point is None else zero_point.reshape(scale.shape)
        self.axis = axis
        self.register_buffer("codes", codes)
        self.register_buffer("scale", scale)
        self.register_buffer("zero_point", zero_point.to(codes.dtype))

    def forward(self, weight: Tensor) -> Tensor:
        marked: Tensor = torch.ops.qat.dequantize(self.codes, self.scale, self.zero_point, self.axis)
        return marked


def _with_markers(converted: nn.Module) -> tuple[nn.Module, dict[str, QuantSpec]]:
    """A copy that exports as codes, and initializer of integers -> its spec."""
    exporting = copy.deepcopy(converted)
    specs = {}
    for name, layer in list(quantized_layers(exporting)):
        prefix = f"{name}." if name else ""
        for part in ("codes", "zero_point"):
            specs[f"{prefix}weight_quantizer.{part}"] = layer.weight_quantizer.spec
        layer._modules["weight_quantizer"] = _StoredCodes(layer.weight_quantizer, layer.weight, layer.axis)
    return exporting, specs


def _torch_to_onnx(
    model: nn.Module, inputs: tuple[Tensor, ...], outputs: int, opset_version: int, dynamic_batch: bool
) -> ir.Model:
    batch = torch.export.Dim("batch")
    with _quiet():
        program = torch.onnx.export(
            model,
            inputs,
            dynamo=True,
            opset_version=opset_version,
            custom_translation_table={torch.ops.qat.dequantize.default: _dequantize_onnx},
            dynamic_shapes=tuple({0: batch} for _ in inputs) if dynamic_batch else None,
            output_names=["output"] if outputs == 1 else [f"output_{i}" for i in range(outputs)],
            verbose=False,
        )
    assert program is not None
    return program.model


def _store_codes(model: ir.Model, specs: dict[str, QuantSpec]) -> None:
    """Pack the codes, name the initializers after the module's own parameters, drop the exporter's notes."""
    for name, value in list(model.graph.initializers.items()):
        if name in specs:
            dtype, numpy_type = STORED_AS[specs[name].symmetric, specs[name].bits == 8]
            assert value.const_value is not None
            codes = value.const_value.numpy().astype(numpy_type)
            value.const_value = ir.Tensor(codes, dtype=dtype, name=name)
            value.dtype = dtype
        if ".weight_quantizer." in f".{name}":
            prefix, part = name.rsplit("weight_quantizer.", 1)
            value.name = f"{prefix}weight" if part == "codes" else f"{prefix}weight_{part}"
    for node in model.graph:
        node.metadata_props.clear()
        node.doc_string = None
    for value in [*model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values()]:
        value.metadata_props.clear()
    model.graph.metadata_props.clear()
    model.metadata_props.clear()


def _assert_same_codes(proto: onnx.ModelProto, converted: nn.Module) -> None:
    """The codes in the file are the codes of the forward pass, layer by layer."""
    stored = dict(code_arrays(proto))
    for name, layer in quantized_layers(converted):
        codes = to_numpy(layer.weight_quantizer.codes(layer.weight))
        found = stored.get(f"{name}.weight" if name else "weight")
        if found is None or not np.array_equal(found, codes):
            raise ParityError(f"the codes of layer {name or 'model'!r} in the file are not those of the forward pass")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's remarks about packages nobody needs here out of the terminal."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
