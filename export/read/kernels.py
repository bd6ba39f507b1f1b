"""Which kernels onnxruntime really runs: read from the graph that a default session makes of a file.

Integer codes alone make nothing fast. onnxruntime has to replace QuantizeLinear, DequantizeLinear and the operator
between them by one integer kernel, and does so only where the graph has the form that it looks for. That form is what
is written here, and whether a version of onnxruntime still knows it is asked of that version.
"""

from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from export.read.files import Source
from export.read.runtime import Setup, optimized

INTEGER_KERNELS = {"Gemm": "QGemm", "Conv": "QLinearConv"}
SHAPES = {"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose"}
MOVES = SHAPES | {"MaxPool"}
LIMITS = {"Relu", "Clip"}
EIGHT_BITS = (TensorProto.INT8, TensorProto.UINT8)


class KernelError(RuntimeError):
    """onnxruntime does not run a file with the kernels that it was written for."""


@dataclass(frozen=True)
class Kernels:
    """What a file was written for, and what onnxruntime makes of it.

    Attributes:
        expected: node -> its kernel: "MatMulNBits", "QGemm" or "QLinearConv".
        missing: node -> what runs in its kernel's place.
        slow: layer -> why no quick kernel was expected.
    """

    expected: dict[str, str]
    missing: dict[str, str] = field(default_factory=dict)
    slow: dict[str, str] = field(default_factory=dict)

    def raise_if_missing(self) -> None:
        """Raises KernelError that names the first node without its kernel."""
        if self.missing:
            raise KernelError(str(self))

    def __str__(self) -> str:
        """One sentence."""
        count = len(self.expected)
        if not self.missing:
            kinds = " and ".join(sorted(set(self.expected.values())))
            return f"{count} layers run as {kinds}" if count else "no layer has a quick kernel"
        node, instead = next(iter(self.missing.items()))
        return (
            f"onnxruntime runs {len(self.missing)} of {count} layers without their quick kernel: {node} as {instead}, "
            f"expected {self.expected[node]}"
        )


def expected_kernels(model: onnx.ModelProto) -> tuple[dict[str, str], dict[str, str]]:
    """What surrounds each Gemm and Conv has the form that onnxruntime looks for, or has not.

    Returns:
        Node -> its kernel, and layer -> why it has none.
    """
    graph = _Graph(model)
    kernels = {node.name: "MatMulNBits" for node in model.graph.node if node.op_type == "MatMulNBits"}
    slow: dict[str, str] = {}
    for node in model.graph.node:
        if node.op_type in INTEGER_KERNELS:
            reason = graph.why_float(node)
            if reason:
                slow[node.name.rpartition("/")[0]] = reason
            else:
                kernels[node.name] = INTEGER_KERNELS[node.op_type]
    return kernels, slow


def find_kernels(
    model: Source,
    expected: dict[str, str],
    slow: dict[str, str] | None = None,
    setup: Setup | None = None,
) -> Kernels:
    """Look for the expected kernels in the graph that a session optimizes as far as it can."""
    running = {node.name.partition("_token_")[0]: node.op_type for node in optimized(model, setup).graph.node}
    instead = {name: running.get(name, "nothing of that name") for name in expected}
    missing = {name: op_type for name, op_type in instead.items() if op_type != expected[name]}
    return Kernels(expected, missing, slow or {})


class _Graph:
    def __init__(self, model: onnx.ModelProto) -> None:
        self.tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        self.producers = {output: node for node in model.graph.node for output in node.output}
        self.outputs = {output.name for output in model.graph.output}
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in model.graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)

    def why_float(self, node: onnx.NodeProto) -> str:
        """What keeps onnxruntime from an integer kernel; empty if nothing does."""
        x, weight, *bias = (self._dequantized(name) for name in node.input if name)
        if x is None or self.tensors[x.input[2]].data_type not in EIGHT_BITS:
            return "its input is not 8-bit codes"
        if weight is None or any(attribute.name == "block_size" and attribute.i for attribute in weight.attribute):
            return "its weights have more than one scale a channel, or a half-shifted grid"
        if self.tensors[weight.input[0]].data_type not in EIGHT_BITS:
            return "its weights are not stored in 8 bits"
        if bias and (bias[0] is None or self.tensors[bias[0].input[0]].data_type != TensorProto.INT32):
            return "its bias is not INT32"
        return self._why_not_followed_well(node)

    def _why_not_followed_well(self, node: onnx.NodeProto) -> str:
        """A QGemm may answer in float, a QLinearConv only in codes; what limits the codes must say nothing new."""
        after = self._only_reader(node)
        if after is not None and after.op_type in LIMITS:
            quantize = self._behind_moves(self._only_reader(after))
            if quantize is None or not self._is_redundant(after, quantize):
                return f"{after.name} behind it allows other numbers than the codes that follow"
            return ""
        after = self._behind_moves(after)
        if node.op_type == "Conv" and (after is None or after.op_type != "QuantizeLinear"):
            return "its output is not quantized"
        return ""

    def _is_redundant(self, limit: onnx.NodeProto, quantize: onnx.NodeProto) -> bool:
        """Does a Relu or Clip let all numbers pass that the codes behind it can stand for?"""
        if quantize.op_type != "QuantizeLinear":
            return False
        scale, zero_point = (numpy_helper.to_array(self.tensors[name]) for name in quantize.input[1:3])
        if zero_point.dtype not in (np.uint8, np.int8):
            return False
        codes = np.iinfo(zero_point.dtype)
        low, high = ((end - float(zero_point)) * float(scale) for end in (codes.min, codes.max))
        if limit.op_type == "Relu":
            return low >= 0
        return all(name in self.tensors for name in limit.input[1:]) and (
            self._number(limit.input[1]) <= low and high <= self._number(limit.input[2])
        )

    def _number(self, name: str) -> float:
        return float(numpy_helper.to_array(self.tensors[name]))

    def _behind_moves(self, node: onnx.NodeProto | None) -> onnx.NodeProto | None:
        while node is not None and node.op_type in MOVES:
            node = self._only_reader(node)
        return node

    def _only_reader(self, node: onnx.NodeProto) -> onnx.NodeProto | None:
        readers = self.readers.get(node.output[0], [])
        return readers[0] if len(readers) == 1 and node.output[0] not in self.outputs else None

    def _dequantized(self, name: str) -> onnx.NodeProto | None:
        """The DequantizeLinear that a value comes from, through a change of shape."""
        producer = self.producers.get(name)
        while producer is not None and producer.op_type in SHAPES:
            producer = self.producers.get(producer.input[0])
        return producer if producer is not None and producer.op_type == "DequantizeLinear" else None
