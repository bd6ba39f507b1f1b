"""export_onnx: trace, prove, write."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import onnx
from torch import Tensor, nn

from export.read.compare import ParityReport
from export.read.costs import MANY_ROUNDS, ROUNDS, speed_of
from export.read.files import Target, write, writing
from export.read.graph import Graph
from export.read.kernels import Kernels, expected_kernels, find_kernels, see_activations
from export.read.requires import unmet
from export.read.runtime import NO_INTEGER_KERNELS, InputsError, Setup
from export.read.speed import Choice
from export.write.auto import choose
from export.write.axes import Declared, declared, settle_declared, settle_longest
from export.write.call import Call
from export.write.checks import (
    check_arguments,
    check_batch,
    check_declared,
    check_mode,
    check_names,
    check_numbers,
    check_recurrence,
    names_in_file,
    same_axes_of_one_row,
)
from export.write.parity import assert_same_values, parity_of, why_not_alike
from export.write.promise import attach_receipt
from export.write.qdq import to_qdq
from export.write.reference import reference
from export.write.settings import as_settings
from export.write.sizes import enlarged, longer, takes
from export.write.storage import default_opset, stored_layers
from export.write.stored import StoredLayer
from export.write.tensors import free_copies, lean, to_numpy
from qat_core.batches import unwrapped


def export_onnx(
    model: nn.Module,
    example_inputs: Any,
    path: Target,
    *,
    flavor: str = "qdq",
    storage: str | None = None,
    processor: str = "any",
    opset_version: int | None = None,
    dynamic_batch: bool = True,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    dynamic_shapes: Any = None,
    min_speedup: float | None = None,
) -> ParityReport:
    """Write a model as ONNX with QuantizeLinear / DequantizeLinear nodes, and prove that it answers the same.

    Args:
        model: prepared or converted; it is left as it is.
        example_inputs: a tensor, a tuple of arguments, a mapping of keyword arguments, or a tuple that ends in one, as
            torch.onnx.export takes them; arguments may be None, and containers of tensors.
        path: where the file goes, a path or an open binary file. It is written only after its parity has been proved.
        flavor: "qdq", standard operators only; or "ort", in which Linear layers are com.microsoft::MatMulNBits, for
            speed in onnxruntime: with float32 activations, or with 8-bit ones for layers trained with dynamic per-group
            activations. Layers that MatMulNBits has no quick kernel for stay as in "qdq". "auto" measures, and takes
            for each layer the form that is quickest here at the shapes of the example, float32 where no small one is.
        storage: for integer kernels where activations are quantized with static scales: "int8" keeps narrower codes
            in INT8, and "packed" in bytes that a session unpacks to INT8 once, as it loads: as quick, and as small as
            None, which is the narrowest type there is.
        processor: which one the file is for: "any", or "vnni" for x86 with VNNI, where 8-bit weights that meet 8-bit
            activations are quicker as INT8, and wrong elsewhere. Where this processor has none, the file is proved
            without integer kernels, and the report says so.
        opset_version: 21 to 25. None is 21, the first with INT4, or 25, the first with INT2, for a model that
            stores codes of two bits; weights of layers with static activations take INT4.
        dynamic_batch: let the file take any size along every axis for which the model does; False is the example's.
        input_names, output_names: of all tensors that go in and come out, in the order of forward's arguments and of
            the answer; None is the names of arguments, keys and fields, and "output" with a number where there is none.
        dynamic_shapes: which axes vary, as in torch.export.export; None finds out.
        min_speedup: refuse a file that is not so many times as fast as float32 at the shapes of the example, on this
            machine and one thread.

    Returns:
        onnxruntime against PyTorch on the example inputs, at every optimization level, and how fast the file is beside
        float32; with flavor "ort" or storage "int8" also the quick kernels that onnxruntime was seen to run.

    Raises:
        ValueError: the model was not prepared, has quantizers that are switched off, is in training mode and answers
            otherwise there, answers something else than tensors of numbers, or otherwise each time, is not float32,
            cannot be traced, takes one size of batch only or has no layer that the flavor is for, or an argument is
            not supported.
        FileError: the path cannot be written.
        ParityError: the codes or the outputs differ; nothing is written.
        KernelError: this onnxruntime does not run the quick kernels that the flavor or the storage is for; nothing is
            written.
        SpeedError: the file is slower than `min_speedup`; the message names the layers that cost; nothing is written.
    """
    check_arguments(flavor, storage, opset_version, min_speedup)
    model = unwrapped(model)
    call = Call.of(model, example_inputs)
    check_recurrence(model)
    with lean(model):
        made, inputs = reference(model, call), call.tensors
        converted, expected = made.model, list(made.expected.values())
        check_numbers(model, made.expected)
        check_mode(model, converted, inputs, expected)
        names = names_in_file(call.names, list(made.expected), input_names, output_names)
        arrays = [to_numpy(t) for t in inputs]
        choices: list[Choice] = []
        if flavor == "auto":

            def fixed(layers: Sequence[StoredLayer]) -> onnx.ModelProto:
                opset = opset_version or default_opset(layers)
                return to_qdq(converted, layers, inputs, *names, opset_version=opset)

            choices = choose(made.model, arrays, fixed, opset_version, processor, made.read)
        forms = {choice.layer: choice.form for choice in choices}
        layers = stored_layers(made.model, flavor, storage, opset_version, processor, forms, made.read)
        opset = opset_version or default_opset(layers)

        def graph_of(example: Sequence[Tensor], shapes: Declared | None = None) -> onnx.ModelProto:
            proto = to_qdq(converted, layers, example, *names, opset_version=opset, shapes=shapes)
            check_names(proto)
            return proto

        def problem(proto: onnx.ModelProto, other: Sequence[Tensor]) -> str:
            return why_not_alike(converted, proto, other)

        works = takes(converted)
        if dynamic_shapes is not None:
            shapes = declared(call, dynamic_shapes)
            proto, why_fixed = settle_declared(inputs, shapes, works, graph_of, problem)
        elif dynamic_batch:
            example = enlarged(inputs, works)
            proto, why_fixed = settle_longest((longer(example, works), example), inputs, works, graph_of, problem)
        else:
            proto, why_fixed = graph_of(inputs), ""
        graph = Graph(proto)
        free_copies(converted)
        assert_same_values(graph, layers)
        settings = {"flavor": flavor, "storage": storage, "opset_version": opset, **as_settings(layers)}
        reasons = {layer.name: layer.reason for layer in layers if layer.reason}
        layers = []  # they hold their codes, a byte each
        with writing(path) as target, same_axes_of_one_row(model):
            write(proto, target)
            kernels = _kernels_of(graph, reasons, target) if flavor != "qdq" or storage else None
            lacking = unmet(graph)
            setup = Setup(config=NO_INTEGER_KERNELS) if lacking else None
            try:
                found = parity_of(converted, graph, target, inputs, expected, setup, kernels, made.left)
            except InputsError as error:
                raise ValueError(f"what torch made of {type(model).__name__} does not run: {error}") from error
            report = replace(found, unmet=lacking)
            report.raise_if_broken()
            if dynamic_shapes is not None:
                check_declared(shapes, graph, why_fixed)
            elif dynamic_batch:
                check_batch(converted, graph, why_fixed)
            if kernels is not None:
                kernels.raise_if_missing()
            if choices:
                settings["choices"] = [asdict(choice) for choice in choices]
            if processor != "any":
                settings["processor"] = processor
            speed = speed_of(target, graph, arrays, setup, ROUNDS if min_speedup is None else MANY_ROUNDS)
            speed.raise_if_below(min_speedup)
            attach_receipt(graph, target, converted, inputs, expected, report, settings, setup)
            write(proto, target)
        return replace(report, speed=speed, choices=choices)


def _kernels_of(graph: Graph, reasons: Mapping[str, str], target: Path) -> Kernels:
    """The quick kernels that onnxruntime should run, and runs; the others with the reason that the storage knows."""
    promised, in_float = expected_kernels(graph)
    quick = {node.rpartition("/")[0] for node in promised}
    slow = {n: reason for n, reason in {**in_float, **reasons}.items() if n not in quick}
    return see_activations(find_kernels(target, promised, slow), graph)
