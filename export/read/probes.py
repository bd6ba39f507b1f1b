"""Small questions whose answers tell how this onnxruntime computes on this processor: names of kernels do not."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from export.read.files import FileError
from export.read.graph import Graph
from export.read.runtime import InputsError, Setup, run, session

LARGEST = np.float32(127)  # code of 8 bits
PAIRS = 64
ROUNDING_LEVEL = 4  # the accuracy level of MatMulNBits that asks for 8-bit activations


def saturates(setup: Setup | None = None) -> bool:
    """Are pairs of products of bytes cut off at 16 bits, where weights are INT8? On x86 without VNNI they are."""
    weight = np.full((1, PAIRS), 127, np.int8)
    tensors = {
        "one": np.float32(1),
        "zero": np.uint8(0),
        "weight": weight,
        "signed_zero": np.int8(0),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "one", "zero"], ["codes"]),
        helper.make_node("DequantizeLinear", ["codes", "one", "zero"], ["input"]),
        helper.make_node("DequantizeLinear", ["weight", "one", "signed_zero"], ["factors"]),
        helper.make_node("Gemm", ["input", "factors"], ["y"], transB=1),
    ]
    x = np.full((1, PAIRS), 255, np.float32)
    (y,) = run(session(_model(nodes, tensors, PAIRS, 1), setup=setup), [x])
    return float(np.ravel(y)[0]) != float(255 * weight.astype(np.int64).sum())


def rounds_activations(graph: Graph, node: onnx.NodeProto, setup: Setup | None = None) -> bool:
    """Does onnxruntime multiply a MatMulNBits at accuracy level 4 by 8-bit activations, as it was asked to?

    The node answers one row with its own tensors, which either float activations or rounded ones explain better.
    """
    k, size = (graph.attribute(node, name) for name in ("K", "block_size"))
    stored = graph.packed[node.input[1]]
    weight = stored.as_weight(stored.values).astype(np.float64)  # (N, K)
    x = np.linspace(-1, 1, k, dtype=np.float32) ** 3
    alone = onnx.NodeProto()
    alone.CopyFrom(node)
    del alone.input[4:], alone.output[:]
    alone.input[0] = "x"
    alone.output.append("y")
    tensors = {name: graph.tensors[name] for name in alone.input[1:] if name}
    try:
        (y,) = run(session(_model([alone], tensors, k, len(weight)), setup=setup), [x[None]])
    except (FileError, InputsError):  # some versions have no kernel for these bits
        return False
    in_float, rounded = (weight @ row.astype(np.float64) for row in (x, round_blocks(x, size)))
    return bool(np.abs(y[0] - rounded).max() < np.abs(y[0] - in_float).max())


def round_blocks(row: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """What the kernel makes of a row: each block rounded to 8 bits by the largest number in it."""
    blocks = np.pad(row, (0, -len(row) % size)).reshape(-1, size)
    scale = np.abs(blocks).max(1, keepdims=True) / LARGEST
    codes = np.rint(blocks * (1 / np.where(scale == 0, np.float32(1), scale)))
    rounded: NDArray[np.float32] = (codes * scale).reshape(-1)[: len(row)]
    return rounded


def _model(nodes: Iterable[onnx.NodeProto], tensors: Mapping[str, Any], k: int, n: int) -> onnx.ModelProto:
    """x (rows, k) -> y (rows, n)."""
    stored = [
        t if isinstance(t, TensorProto) else numpy_helper.from_array(np.asarray(t), name) for name, t in tensors.items()
    ]
    x, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", size]) for name, size in (("x", k), ("y", n))
    )
    graph = helper.make_graph(list(nodes), "probe", [x], [y], stored)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)
