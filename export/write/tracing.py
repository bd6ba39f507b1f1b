"""A module that calls marker operators as an ONNX graph, by torch.onnx.export or the short way to the same."""

import gc
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import onnx_ir as ir
import torch
from torch import Tensor, nn

from export.write.axes import Declared
from export.write.torch_private import quick_graph
from export.write.translations import translations

QUIET = (  # whose reason is raised, too
    "torch.onnx",
    "torch.fx.experimental.symbolic_shapes",
    "torch._subclasses.fake_tensor",
    "onnxscript",
    "onnx_ir",
)


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
            if graph is None:
                program = torch.onnx.export(
                    model,
                    tuple(inputs),
                    dynamo=True,
                    optimize=False,
                    opset_version=opset_version,
                    custom_translation_table=translations(),
                    dynamic_shapes=shapes,
                    verbose=False,
                )
                assert program is not None
                graph = program.model
    except torch.onnx.OnnxExporterError as error:
        raise ValueError(f"torch cannot export {type(model).__name__}: {_root_cause(error)}") from error
    return graph


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
    loggers = [logging.getLogger(name) for name in QUIET]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
