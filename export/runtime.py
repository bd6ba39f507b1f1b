"""Running an ONNX model in onnxruntime, the same way everywhere in this room."""

import os
from collections.abc import Sequence

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

LEVELS = {
    "disable_all": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}


def session(model: str | os.PathLike[str] | bytes, level: str = "all") -> ort.InferenceSession:
    """A CPU session on one thread at a level of graph optimization, otherwise with default options.

    Args:
        model: path of an ONNX file, or its bytes.
        level: "disable_all", "basic", "extended" or "all", which is onnxruntime's default.
    """
    options = ort.SessionOptions()
    options.graph_optimization_level = LEVELS[level]
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    source = model if isinstance(model, bytes) else os.fspath(model)
    return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def run(session: ort.InferenceSession, inputs: Sequence[NDArray[np.generic]]) -> list[NDArray[np.generic]]:
    """The outputs for inputs given in the order of the graph's."""
    feed = {node.name: value for node, value in zip(session.get_inputs(), inputs, strict=True)}
    return list(session.run(None, feed))
