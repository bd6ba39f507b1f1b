"""export_onnx: trace, prove, write."""

import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from export.read import receipt
from export.read.compare import ParityReport, compare
from export.read.files import write, writing
from export.read.graph import Graph
from export.read.kernels import Kernels, expected_kernels, find_kernels
from export.write.parity import assert_same_values, parity_of
from export.write.qdq import to_qdq
from export.write.storage import FIRST_OPSET, LAST_OPSET, StoredLayer, as_settings, default_opset, stored_layers
from export.write.tensors import as_inputs, to_numpy, torch_outputs
from qat_core import convert

SAMPLE_ATTEMPTS = 8
DROPOUTS = nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout
BATCH_NORMS = nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm


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
    layers = stored_layers(converted, flavor, storage, opset_version)
    opset = opset_version or default_opset(layers)

    expected = torch_outputs(converted, inputs)
    proto = to_qdq(converted, layers, inputs, len(expected), opset_version=opset, dynamic_batch=dynamic_batch)
    graph = Graph(proto)
    assert_same_values(graph, layers)
    with writing(path) as target:
        write(proto, target)
        kernels = _kernels_of(graph, layers, target) if flavor == "ort" or storage == "int8" else None
        report = parity_of(converted, graph, target, inputs, expected, kernels=kernels)
        report.raise_if_broken()
        if kernels is not None:
            kernels.raise_if_missing()
        settings = {"flavor": flavor, "storage": storage, "opset_version": opset, **as_settings(layers)}
        _attach_receipt(graph, target, converted, inputs, report, settings)
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


def _kernels_of(graph: Graph, layers: Sequence[StoredLayer], target: Path) -> Kernels:
    """The quick kernels that onnxruntime should run, and runs; the others with the reason that the storage knows."""
    promised, in_float = expected_kernels(graph)
    quick = {node.rpartition("/")[0] for node in promised}
    known = {layer.name: layer.reason for layer in layers if layer.reason}
    return find_kernels(target, promised, {n: reason for n, reason in {**in_float, **known}.items() if n not in quick})


def _check_mode(model: nn.Module) -> None:
    """A file answers as the model does in evaluation mode, so that has to be its mode where it makes a difference."""
    for name, module in model.named_modules():
        drops = isinstance(module, DROPOUTS) and module.p > 0
        if module.training and (drops or isinstance(module, BATCH_NORMS)):
            raise ValueError(
                f"the model is in training mode, where {type(module).__name__} {name!r} answers otherwise; expected "
                "model.eval()"
            )


def _attach_receipt(
    graph: Graph,
    target: Path,
    converted: nn.Module,
    inputs: Sequence[Tensor],
    report: ParityReport,
    settings: dict[str, Any],
) -> None:
    """Promise a sample that no rounding tie decides, on this machine at least."""
    whole = any(value.type.tensor_type.shape.dim[0].dim_value for value in graph.model.graph.input)
    for first_row in range(SAMPLE_ATTEMPTS):
        sample = receipt.sample([to_numpy(t) for t in inputs], first_row, whole)
        numbers = receipt.numbers(sample)
        outputs = torch_outputs(converted, [torch.from_numpy(x) for x in numbers])
        levels = compare(target, numbers, outputs, report.tolerances)
        if not any(level.beyond_tolerance for level in levels):
            break
    receipt.attach(
        graph,
        sample,
        outputs,
        report.tolerances,
        versions={"python": platform.python_version()}
        | {m.__name__: m.__version__ for m in (torch, onnx, onnxruntime)},
        settings=settings,
        kernels=report.kernels.expected if report.kernels else {},
    )
