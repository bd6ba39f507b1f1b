"""torch 2.11 to 2.14 by names that they keep to themselves, for an export of a small network in a sixth of the time.

torch.onnx.export makes a table of all operators that have an ONNX function and one of how to take the others apart, and
traces each program a second time to do so, whether there are any or not: 1.3 s for three small layers. Here the first
table is made once, and a program that needs no second trace gets neither that nor the second table: 0.2 s for the same
graph. A torch that has other names is asked in its public way.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from types import SimpleNamespace
from typing import Any

import onnx_ir as ir
import onnxscript
import torch
from torch import Tensor, nn

from export.write.axes import Declared
from export.write.translations import TRANSLATIONS, translations

_building, _tracing = threading.Lock(), threading.Lock()


def quick_graph(
    model: nn.Module, inputs: Sequence[Tensor], shapes: Declared | None, opset_version: int
) -> ir.Model | None:
    """What torch.onnx.export makes of a model, sooner.

    None where this torch cannot be asked so, or does not trace the model at the first attempt.

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
        registry = _registry(opset_version, frozenset(translations().items()))
        with _whole(None if _needs_decomposing(program, registry) else program), _listed_once():
            answer = export(program, registry=registry, opset_version=opset_version, optimize=False, verbose=False)
        if shapes is not None:
            answer._rename_dynamic_axes(shapes)
        return answer.model
    except (ImportError, AttributeError, TypeError):
        return None


@cache
def _registry(opset_version: int, ours: frozenset[tuple[Any, Any]]) -> Any:
    """torch's table of operators and their ONNX functions, ours among them."""
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    with _building, _functions_unparsed():
        registry = ONNXRegistry.from_torchlib(opset_version=opset_version)
    for operator, function in ours:
        registry.register_op(operator, function)
    return registry


def _functions_unparsed() -> AbstractContextManager[None]:
    """The table asks each of 500 functions for its domain, for which onnxscript parses its source; its opset knows."""
    by_opset = property(lambda function: SimpleNamespace(domain=function.opset.domain))
    return _replaced(onnxscript.TracedOnnxFunction, "function_ir", by_opset)


@contextmanager
def _whole(program: torch.export.ExportedProgram | None) -> Iterator[None]:
    """This program is not taken apart; others are, in whichever thread."""
    from torch.onnx._internal.exporter import _fx_passes

    with _tracing:
        taken_apart = _fx_passes.decompose_with_registry

        def unless_it(p: torch.export.ExportedProgram, registry: Any) -> Any:
            return p if p is program else taken_apart(p, registry)

        with _replaced(_fx_passes, "decompose_with_registry", unless_it):
            yield


def _listed_once() -> AbstractContextManager[None]:
    """To take a program apart, torch lists all operators of C++ 56 times: for each namespace, and that twice."""
    from torch._export import utils

    return _replaced(utils, "_materialize_cpp_cia_ops", cache(utils._materialize_cpp_cia_ops))


@contextmanager
def _replaced(owner: Any, name: str, other: Any) -> Iterator[None]:
    """Something of torch's is another for a while."""
    own = getattr(owner, name)
    setattr(owner, name, other)
    try:
        yield
    finally:
        setattr(owner, name, own)


def _needs_decomposing(program: torch.export.ExportedProgram, registry: Any) -> bool:
    """Would a second trace change the program? What is asserted of sizes is left out of a graph in any case."""
    return any(
        node.op not in ("placeholder", "output")
        and node.target is not torch.ops.aten._assert_scalar.default
        and (node.op != "call_function" or not registry.is_registered(node.target) or _is_rewritten(node.target))
        for node in program.graph.nodes
    )


def _is_rewritten(operator: Any) -> bool:
    """Operators that write into their input, and views that torch makes of others, such as chunk of split."""
    if operator in TRANSLATIONS or not isinstance(operator, torch._ops.OpOverload):
        return False
    shares_memory = any(value.alias_info for value in [*operator._schema.arguments, *operator._schema.returns])
    return operator._schema.is_mutable or (shares_memory and operator._can_decompose())
