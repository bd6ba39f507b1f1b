"""A module that calls marker operators as an ONNX graph, by torch.onnx.export or the short way to the same."""

import gc
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import onnx_ir as ir
import torch
from torch import Tensor, nn

from export.write.torch_private import Shapes, quick_graph
from export.write.translations import TRANSLATIONS


def trace(model: nn.Module, inputs: Sequence[Tensor], *, opset_version: int, dynamic_batch: bool) -> ir.Model:
    """The graph of a model that calls marker operators.

    Args:
        model: on the CPU.
        inputs: example inputs.
        opset_version: of ONNX.
        dynamic_batch: let the first dimension vary, and with it the length of sequences where torch.export can.

    Raises:
        ValueError: torch cannot trace the model; its reason is passed on. Or the batch was to vary and cannot.
    """
    batch = inputs[0].shape[0] if inputs and inputs[0].dim() else 0
    if dynamic_batch and batch == 1:  # torch.export takes a size of 1 for a constant
        inputs = [torch.cat([x, x]) if x.dim() and x.shape[0] == 1 else x for x in inputs]
        batch = 2
    shapes = _dynamic_shapes(inputs, batch) if dynamic_batch else None
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
                    custom_translation_table=TRANSLATIONS,
                    dynamic_shapes=shapes,
                    verbose=False,
                )
                assert program is not None
                graph = program.model
    except torch.onnx.OnnxExporterError as error:
        raise ValueError(f"torch cannot export {type(model).__name__}: {_root_cause(error)}") from error
    for value, dims in zip(graph.graph.inputs, shapes or (), strict=False):
        if 0 in dims and value.shape is not None and isinstance(value.shape[0], int):
            raise ValueError(
                f"{type(model).__name__} takes batches of {value.shape[0]} only: its forward depends on that number; "
                "expected one that takes any, or dynamic_batch=False"
            )
    return graph


def _dynamic_shapes(inputs: Sequence[Tensor], batch: int) -> Shapes:
    """The batch everywhere, and dimension 1 of tokens (batch, length) and of sequences (batch, length, features)."""
    named, auto = torch.export.Dim("batch"), torch.export.Dim.AUTO
    shapes: list[dict[int, object]] = []
    for x in inputs:
        dims: dict[int, object] = {0: named} if x.dim() and x.shape[0] == batch else {}
        if x.dim() == (3 if x.is_floating_point() else 2):
            dims[1] = auto
        shapes.append(dims)
    return tuple(shapes)


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
