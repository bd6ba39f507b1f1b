"""Can any input make onnxruntime differ? With power-of-two scales a bound on the weights says no.

A number on a power-of-two grid is a whole number times 2^k. A layer multiplies and adds such numbers, and float32
holds every whole number up to 2^24: while no sum can grow beyond that, every product and partial sum is exact, and
then neither the order of summation nor a fused integer kernel can change a single bit. But for one: with INT8 weights,
integer kernels of processors without VNNI add two products in 16 bits.
"""

from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from export.read.kernels import EIGHT_BITS

LIMIT = 2**24
PAIR_LIMIT = 2**15 - 1
LARGEST_INPUT = 255  # integer kernels move signed codes of an input to 0..255
# operators that move numbers or pick among them
EXACT = {"Relu", "Clip", "Max", "Min"}
EXACT |= {"MaxPool", "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Concat", "Split"}
EXACT |= {"Slice", "Gather", "Identity", "Shape", "Pad", "Constant", "QuantizeLinear", "DequantizeLinear"}
MOVES = {"Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Slice", "Identity", "MaxPool", "Split"}
CHANNEL_AXIS = {"Gemm": 0, "Conv": 0, "ConvTranspose": 1}


@dataclass(frozen=True)
class Proof:
    """What holds for every input.

    Attributes:
        proven: every sum of every layer stays at or below 2^24 steps of its grid.
        reason: why not; empty when proven.
        bounds: layer -> the largest sum its weights and bias can make, in steps.
    """

    proven: bool
    reason: str
    bounds: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        if not self.proven:
            return f"not proven: {self.reason}"
        return f"bit-exact, proven: no sum exceeds {max(self.bounds.values(), default=0):,} of 2^24 = {LIMIT:,} steps"


class _NotProven(Exception):
    pass


def prove(model: onnx.ModelProto) -> Proof:
    """Bound every sum in a QDQ graph with static activations."""
    graph = _Graph(model)
    bounds: dict[str, int] = {}
    try:
        for node in model.graph.node:
            if node.op_type in CHANNEL_AXIS:
                bounds[node.name] = graph.largest_sum(node)
                if bounds[node.name] > LIMIT:
                    raise _NotProven(f"the sums of {node.name} can reach {bounds[node.name]:,} steps, above 2^24")
            elif node.op_type not in EXACT:
                raise _NotProven(f"{node.name} rounds")
    except _NotProven as reason:
        return Proof(False, str(reason), bounds)
    return Proof(True, "", bounds)


class _Graph:
    def __init__(self, model: onnx.ModelProto) -> None:
        self.producers = {output: node for node in model.graph.node for output in node.output}
        self.tensors = {tensor.name: tensor for tensor in model.graph.initializer}

    def largest_sum(self, node: onnx.NodeProto) -> int:
        """max over output channels of sum |weight code| x max |input code| + |bias code|."""
        x, weight, *bias = (self.dequantized(name, node) for name in node.input if name)
        if x.op_type != "DequantizeLinear" or (quantize := self.producers.get(x.input[0])) is None:
            raise _NotProven(f"the input of {node.name} is not quantized")
        self.check_scale(quantize, node)
        codes = self.codes(weight, node)
        self.check_pairs(quantize, weight, node)
        axis = CHANNEL_AXIS[node.op_type]
        sums = np.abs(codes).sum(tuple(d for d in range(codes.ndim) if d != axis)) * self.largest_code(quantize)
        if bias:
            biases = np.abs(self.codes(bias[0], node))
            sums = np.resize(sums, biases.shape) + biases  # the groups of a ConvTranspose share their weights' bound
        return int(sums.max())

    def check_pairs(self, quantize: onnx.NodeProto, weight: onnx.NodeProto, node: onnx.NodeProto) -> None:
        inputs, stored = self.tensors[quantize.input[2]], self.tensors[weight.input[0]]
        if inputs.data_type not in EIGHT_BITS or stored.data_type != TensorProto.INT8:
            return
        pair = 2 * LARGEST_INPUT * int(np.abs(numpy_helper.to_array(stored).astype(np.int64)).max(initial=0))
        if pair > PAIR_LIMIT:
            raise _NotProven(f"two products of {node.name} can add up to {pair:,}, above 2^15, where VNNI is missing")

    def dequantized(self, name: str, node: onnx.NodeProto) -> onnx.NodeProto:
        """The DequantizeLinear that a value comes from, through operators that only move numbers."""
        while (producer := self.producers.get(name)) is not None and producer.op_type in MOVES:
            name = producer.input[0]
        if producer is None or producer.op_type != "DequantizeLinear":
            raise _NotProven(f"{node.name} reads {name!r}, which is not on a grid")
        return producer

    def codes(self, dequantize: onnx.NodeProto, node: onnx.NodeProto) -> NDArray[np.int64]:
        """code - zero_point of a stored tensor with one power-of-two scale a channel."""
        names = list(dequantize.input)
        if not all(name in self.tensors for name in names) or any(
            a.i for a in dequantize.attribute if a.name == "block_size"
        ):
            raise _NotProven(f"{node.name} has no single unit a channel")
        self.check_scale(dequantize, node)
        codes, zero_point = (numpy_helper.to_array(self.tensors[names[i]]).astype(np.int64) for i in (0, 2))
        if zero_point.ndim:
            axis = next((a.i for a in dequantize.attribute if a.name == "axis"), 1)
            zero_point = zero_point.reshape([-1 if d == axis else 1 for d in range(codes.ndim)])
        return codes - zero_point

    def check_scale(self, quantizer: onnx.NodeProto, node: onnx.NodeProto) -> None:
        mantissas, _ = np.frexp(numpy_helper.to_array(self.tensors[quantizer.input[1]]))
        if (mantissas != 0.5).any():
            raise _NotProven(f"the scale {quantizer.input[1]!r} at {node.name} is not a power of two")

    def largest_code(self, quantize: onnx.NodeProto) -> int:
        """max |code - zero_point| that the type of the codes allows."""
        zero_point = self.tensors[quantize.input[2]]
        kind = onnx.TensorProto.DataType.Name(zero_point.data_type)
        bits = int(kind[kind.index("T") + 1 :])
        low, high = (0, 2**bits - 1) if kind.startswith("U") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        origin = int(numpy_helper.to_array(zero_point))
        return int(max(origin - low, high - origin))
