"""A module as an ONNX graph: torch.onnx.export, without the work that it repeats in every call.

It makes a table of all operators that have an ONNX function, and traces each program a second time to take the others
apart, whether there are any or not. For a small network that is five sixths of its time. Here the table is made once,
and a program that needs no second trace gets none; the graph is the same.

Both take names that torch keeps to itself. A torch that has not got them is asked in its public way.
"""

import gc
import logging
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from types import SimpleNamespace
from typing import Any

import onnx_ir as ir
import onnxscript
import torch
from torch import Tensor, nn

from export.write.axes import Declared
from export.write.translations import TRANSLATIONS

_building = threading.Lock()


def trace(model: nn.Module, inputs: Sequence[Tensor], *, opset_version: int, shapes: Declared | None) -> ir.Model:
    """The graph of a model that calls marker operators.

    Args:
        model: on the CPU.
        inputs: example inputs.
        opset_version: of ONNX.
        shapes: for each input the axes that may vary; None is none.

    Raises:
        ValueError: torch cannot trace the model; its reason is passed on.
    """
    try:
        with quiet(), uncollected():
            graph = quick_graph(model, inputs, shapes, opset_version)
            graph = graph or public_graph(model, inputs, shapes, opset_version)
    except torch.onnx.OnnxExporterError as error:
        raise ValueError(f"torch cannot export {type(model).__name__}: {_root_cause(error)}") from error
    return graph


def public_graph(model: nn.Module, inputs: Sequence[Tensor], shapes: Declared | None, opset_version: int) -> ir.Model:
    """What torch.onnx.export makes of a model.

    Raises:
        OnnxExporterError: it cannot.
    """
    program = torch.onnx.export(
        model,
        tuple(inputs),
        dynamo=True,
        optimize=False,
        opset_version=opset_version,
        custom_translation_table=TRANSLATIONS,
        dynamic_shapes=shapes,
        verbose=False,
    )
    assert program is not None
    return program.model


def quick_graph(
    model: nn.Module, inputs: Sequence[Tensor], shapes: Declared | None, opset_version: int
) -> ir.Model | None:
    """The same, sooner; None where this torch cannot be asked so, or does not trace the model at the first attempt.

    Raises:
        OnnxExporterError: an operator of the model has no ONNX function.
    """
    try:
        from torch.onnx._internal.exporter._capture_strategies import TorchExportNonStrictStrategy
        from torch.onnx._internal.exporter._core import export
        from torch.onnx._internal.exporter._flags import set_onnx_exporting_flag

        capture: Any = set_onnx_exporting_flag(TorchExportNonStrictStrategy())
        program = capture(model, tuple(inputs), None, shapes).exported_program
        if program is None:
            return None
        registry = _registry(opset_version)
        if not _needs_decomposing(program, registry):
            program.run_decompositions = lambda _: program
        answer = export(program, registry=registry, opset_version=opset_version, optimize=False, verbose=False)
        if shapes is not None:
            answer._rename_dynamic_axes(shapes)
        return answer.model
    except (ImportError, AttributeError, TypeError):
        return None


@cache
def _registry(opset_version: int) -> Any:
    """torch's table of operators and their ONNX functions, ours among them."""
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    with _building, _functions_unparsed():
        registry = ONNXRegistry.from_torchlib(opset_version=opset_version)
    for operator, function in TRANSLATIONS.items():
        registry.register_op(operator, function)
    return registry


@contextmanager
def _functions_unparsed() -> Iterator[None]:
    """The table asks each of 500 functions for its domain, for which onnxscript parses its source; its opset knows."""
    traced: Any = onnxscript.TracedOnnxFunction
    parsed = traced.function_ir
    traced.function_ir = property(lambda function: SimpleNamespace(domain=function.opset.domain))
    try:
        yield
    finally:
        traced.function_ir = parsed


def _needs_decomposing(program: torch.export.ExportedProgram, registry: Any) -> bool:
    """Would a second trace change the program?"""
    return any(
        node.op not in ("placeholder", "output")
        and (node.op != "call_function" or not registry.is_registered(node.target) or _is_rewritten(node.target))
        for node in program.graph.nodes
    )


def _is_rewritten(operator: Any) -> bool:
    """Operators that write into their input, and views that torch makes of others, such as flatten of view."""
    if not isinstance(operator, torch._ops.OpOverload):
        return False
    shares_memory = any(value.alias_info for value in [*operator._schema.arguments, *operator._schema.returns])
    return operator._schema.is_mutable or (shares_memory and operator._can_decompose())


def _root_cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


@contextmanager
def uncollected() -> Iterator[None]:
    """Without the garbage collector: torch makes and imports so much that its searches take a fifth of the time."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the exporter's remarks about packages nobody needs here out of the terminal."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
