"""Can any input make onnxruntime differ? With power-of-two scales a bound on the weights says no.

A number on a power-of-two grid is a whole number times 2^k. A layer multiplies and adds such numbers, and float32
holds every whole number up to 2^24: while no sum can grow beyond that, every product and partial sum is exact, and
then neither the order of summation nor a fused integer kernel can change a single bit. It is the arithmetic that is
proven: kernels that cut sums off or are wrong are named in `requires.py`, and looked for by the check of the receipt.
"""

from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray

from export.read.codes import code_range
from export.read.graph import LIMITS, MOVES, QDQ, Graph

LIMIT = 2**24
EXACT = MOVES | LIMITS | QDQ | {"Max", "Min", "Concat", "Pad", "Shape", "Constant"}  # they move or pick numbers
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
        largest = max(self.bounds.values(), default=0)
        return f"the arithmetic is proven bit-exact: no sum exceeds {largest:,} of 2^24 = {LIMIT:,} steps"


class _NotProven(Exception):
    pass


def prove(graph: Graph) -> Proof:
    """Bound every sum in a QDQ graph with static activations."""
    bounds: dict[str, int] = {}
    exact = graph.unpacking.union(*(lookup.nodes for lookup in graph.lookups.values()))
    try:
        for node in graph.nodes:
            if node.output[0] in exact:
                continue  # codes as they are, or each number one product, rounded once
            if node.op_type in CHANNEL_AXIS:
                bounds[node.name] = _largest_sum(graph, node)
                if bounds[node.name] > LIMIT:
                    raise _NotProven(f"the sums of {node.name} can reach {bounds[node.name]:,} steps, above 2^24")
            elif node.op_type not in EXACT:
                raise _NotProven(f"{node.name} rounds")
    except _NotProven as reason:
        return Proof(False, str(reason), bounds)
    return Proof(True, "", bounds)


def _largest_sum(graph: Graph, node: onnx.NodeProto) -> int:
    """max over output channels of sum |weight code| x max |input code| + |bias code|."""
    x = _dequantized(graph, node.input[0], node, MOVES)
    weight, *bias = (_dequantized(graph, name, node, {"Split"}) for name in node.input[1:] if name)
    if (quantize := graph.producers.get(x.input[0])) is None:
        raise _NotProven(f"the input of {node.name} is not quantized")
    _check_grid(graph, quantize, node)
    codes = _codes(graph, weight, node)
    axis = CHANNEL_AXIS[node.op_type]
    sums = np.abs(codes).sum(tuple(d for d in range(codes.ndim) if d != axis)) * _largest_code(graph, quantize)
    if bias:
        biases = np.abs(_codes(graph, bias[0], node))
        sums = np.resize(sums, biases.shape) + biases  # the groups of a ConvTranspose share their weights' bound
    return int(sums.max())


def _dequantized(graph: Graph, name: str, node: onnx.NodeProto, through: Collection[str]) -> onnx.NodeProto:
    """The DequantizeLinear that a value comes from, through operators that only move numbers."""
    producer = graph.producer(name, through)
    if producer is None or producer.op_type != "DequantizeLinear":
        raise _NotProven(f"{node.name} reads {name!r}, which is not on a grid")
    return producer


def _codes(graph: Graph, dequantize: onnx.NodeProto, node: onnx.NodeProto) -> NDArray[np.int64]:
    """code - zero_point of a stored tensor with one power-of-two scale a channel."""
    stored = graph.codes(dequantize.input[0])
    tensor = None if stored is None else graph.packed.get(stored.tensor.name)
    if tensor is None or graph.attribute(dequantize, "block_size"):
        raise _NotProven(f"{node.name} has no single unit a channel")
    _check_grid(graph, dequantize, node)
    origin = np.int64(0) if tensor.zero_point is None else graph.array(tensor.zero_point).astype(np.int64)
    if np.ndim(origin):
        axis = graph.attribute(dequantize, "axis", 1)
        origin = origin.reshape([-1 if d == axis else 1 for d in range(len(tensor.shape))])
    return tensor.codes.astype(np.int64).reshape(tensor.shape) - origin


def _check_grid(graph: Graph, quantizer: onnx.NodeProto, node: onnx.NodeProto) -> None:
    needs_type = quantizer.op_type == "QuantizeLinear" and len(quantizer.input) < 3
    if needs_type or not graph.tensors.keys() >= set(quantizer.input[1:]):
        raise _NotProven(f"the scale or the zero point of {quantizer.input[0]!r} at {node.name} is not in the file")
    mantissas, _ = np.frexp(graph.array(quantizer.input[1]))
    if (mantissas != 0.5).any():
        raise _NotProven(f"the scale {quantizer.input[1]!r} at {node.name} is not a power of two")


def _largest_code(graph: Graph, quantize: onnx.NodeProto) -> int:
    """max |code - zero_point| that the type of the codes allows."""
    origin = int(graph.array(quantize.input[2]))
    low, high = code_range(graph.tensors[quantize.input[2]].data_type)
    return max(origin - low, high - origin)
