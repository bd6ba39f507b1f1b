"""One view of an ONNX graph, opened once and indexed once: whatever is asked of a file is asked of it."""

import math
from collections.abc import Collection, Iterable, Iterator
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from export.read.codes import UINT2, PackedTensor, packed_bytes, unpack
from export.read.files import Source, load
from export.read.lookup import Lookup, find_lookup
from export.read.stored import StoredCodes, find_codes

SHAPES = {"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose"}  # the same numbers in another shape
MOVES = SHAPES | {"Slice", "Split", "Gather", "Identity", "MaxPool"}  # some of the numbers, none of them changed
LIMITS = {"Relu", "Clip"}  # the same numbers, but for those beyond a limit
QDQ = {"QuantizeLinear", "DequantizeLinear"}
UNSIGNED_OF = {2: UINT2, 4: TensorProto.UINT4, 8: TensorProto.UINT8}  # what hides in the bytes of MatMulNBits
QUANTIZERS = {  # operator -> which of its inputs is what
    "QuantizeLinear": {"scale": 1, "zero_point": 2},
    "DequantizeLinear": {"codes": 0, "scale": 1, "zero_point": 2},
    "MatMulNBits": {"codes": 1, "scale": 2, "zero_point": 3},
}


class Graph:
    """An ONNX model and who gives and reads what in it; the model must not change afterwards.

    Attributes:
        model: what was indexed.
        nodes: its operators, in order.
        every: they, and those of the graphs inside them, such as the branches of an If.
        tensors: initializer -> tensor, of all these graphs; as are producers and readers.
        producers: value -> the node that gives it.
        readers: value -> the nodes that read it.
        outputs: names of the graph's outputs.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model, self.nodes = model, list(model.graph.node)
        graphs = list(_graphs(model.graph))
        self.every = [node for graph in graphs for node in graph.node]
        self.tensors = {tensor.name: tensor for graph in graphs for tensor in graph.initializer}
        self.producers = {output: node for node in self.every for output in node.output}
        self.outputs = {output.name for output in model.graph.output}
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.every:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)

    @classmethod
    def open(cls, path: Source) -> "Graph":
        """The graph of a file.

        Raises:
            FileError: it cannot be read or is not a valid ONNX model.
        """
        return cls(load(path))

    def array(self, name: str) -> NDArray[Any]:
        """The numbers of an initializer."""
        array: NDArray[Any] = numpy_helper.to_array(self.tensors[name])
        return array

    def attribute(self, node: onnx.NodeProto, name: str, default: Any = None) -> Any:
        """What an attribute of a node says, or the default where it says nothing."""
        return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)

    def producer(self, name: str, through: Collection[str] = ()) -> onnx.NodeProto | None:
        """The node that a value comes from, across operators of the types `through`."""
        node = self.producers.get(name)
        while node is not None and node.op_type in through:
            node = self.producers.get(node.input[0])
        return node

    def reader(self, node: onnx.NodeProto, through: Collection[str] = ()) -> onnx.NodeProto | None:
        """The only node that reads another's first output, across operators of the types `through`; None if more do."""
        while True:
            readers = self.readers.get(node.output[0], [])
            if len(readers) != 1 or node.output[0] in self.outputs:
                return None
            (node,) = readers
            if node.op_type not in through:
                return node

    @cached_property
    def axes(self) -> dict[str, tuple[int | str, ...]]:
        """Input -> its sizes: a number where it takes no other, a name where it takes any."""
        return {
            x.name: tuple(dim.dim_param or dim.dim_value for dim in x.type.tensor_type.shape.dim)
            for x in self.model.graph.input
        }

    @cached_property
    def batch_axes(self) -> list[int | None]:
        """Of each input the axis of the batch, which is the first axis that varies in first place; None without one."""
        batch = next((dims[0] for dims in self.axes.values() if dims and isinstance(dims[0], str)), None)
        return [dims.index(batch) if batch in dims else None for dims in self.axes.values()]

    def codes(self, name: str) -> StoredCodes | None:
        """Where the codes lie that a value is; None if it is not codes of the file."""
        return find_codes(self, name)

    @cached_property
    def lookups(self) -> dict[str, Lookup]:
        """Output of the operator that it begins with -> lookup of rows of codes."""
        found = ((node, find_lookup(self, node)) for node in self.every)
        return {node.output[0]: lookup for node, lookup in found if lookup is not None}

    @cached_property
    def unpacking(self) -> frozenset[str]:
        """Outputs of the operators that unpack codes as a session loads."""
        stored = [self.codes(node.input[0]) for node in self.every if node.op_type == "DequantizeLinear"]
        return frozenset[str]().union(*(found.nodes for found in stored if found is not None))

    @cached_property
    def packed(self) -> dict[str, PackedTensor]:
        """Name -> quantized tensor, in the order in which the graph reads them."""
        found: dict[str, PackedTensor] = {}
        for node in self.every:
            if node.output and (lookup := self.lookups.get(node.output[0])) is not None:
                found.setdefault(node.input[0], lookup.tensor)
            place = QUANTIZERS.get(node.op_type, {}).get("codes")
            stored = None if place is None else self.codes(node.input[place])
            if stored is not None and stored.tensor.name not in found:
                tensor = _hidden(self, node) if node.op_type == "MatMulNBits" else _declared(self, node, stored)
                found[tensor.name] = tensor
        return found

    @cached_property
    def roles(self) -> dict[str, str]:
        """Initializer -> "codes", "scale" or "zero_point", for those that quantize."""
        roles = {
            node.input[place]: role
            for node in self.every
            for role, place in QUANTIZERS.get(node.op_type, {}).items()
            if place < len(node.input)
        }
        roles |= dict.fromkeys(self.packed, "codes")
        for lookup in self.lookups.values():
            roles[lookup.tensor.name] = "codes"
            if lookup.tensor.zero_point:
                roles[lookup.tensor.zero_point] = "zero_point"
        for tensor in self.packed.values():
            roles.update(dict.fromkeys(tensor.scales, "scale"))
        return {name: roles[name] for name in self.tensors if name in roles}

    def code_arrays(self, names: Iterable[str] | None = None) -> Iterator[tuple[str, NDArray[Any]]]:
        """Name and codes of quantized tensors in the shape of what they stand for, in this order or in the file's."""
        for name in self.tensors if names is None else names:
            if (tensor := self.packed.get(name)) is not None:
                codes = tensor.codes
                codes -= tensor.counted_from
                yield name, tensor.as_weight(codes)


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph, and those inside its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inside in (attribute.g, *attribute.graphs):
                if inside.node or inside.initializer:
                    yield from _graphs(inside)


def _declared(graph: Graph, node: onnx.NodeProto, stored: StoredCodes) -> PackedTensor:
    """DequantizeLinear: (code - zero_point) * scale, a scale for the tensor, each index of an axis or each block."""
    scale, zero_point, shape = graph.array(node.input[1]), _optional(node, 2), stored.shape
    origin = graph.array(zero_point).astype(np.int32) if zero_point else np.int32(0)
    following = list(_following(graph, node))
    axis, block = graph.attribute(node, "axis", 1), graph.attribute(node, "block_size", 0)

    def dequantize(codes: NDArray[np.int32]) -> NDArray[np.float32]:
        counted = codes.reshape(shape)
        values: Any = (counted - _spread(origin, shape, axis, block) if np.any(origin) else counted).astype(np.float32)
        values *= _spread(scale, shape, axis, block)
        for operator, name in following:
            values = values + graph.array(name) if operator == "Add" else values * graph.array(name)
        return np.asarray(values)

    scales = (node.input[1], *(name for operator, name in following if operator == "Mul"))
    return PackedTensor(stored.tensor, stored.data_type, shape, shape, scales, zero_point, dequantize)


def _following(graph: Graph, node: onnx.NodeProto) -> Iterator[tuple[str, str]]:
    """Half-shifted grids take DequantizeLinear, Add and Mul: the operators behind the first, and their tensors."""
    reader = graph.reader(node)
    while reader is not None and reader.op_type in ("Add", "Mul") and reader.input[1] in graph.tensors:
        yield reader.op_type, reader.input[1]
        reader = graph.reader(reader)


def _hidden(graph: Graph, node: onnx.NodeProto) -> PackedTensor:
    """com.microsoft::MatMulNBits: bytes (columns, blocks, bytes a block), a scale and a zero point for each block."""
    tensor, scale, zero_point = graph.tensors[node.input[1]], graph.array(node.input[2]), _optional(node, 3)
    columns, k, block = (graph.attribute(node, name) for name in ("N", "K", "block_size"))
    bits = graph.attribute(node, "bits", 4)
    blocks = math.prod(tensor.dims) * 8 // bits // columns // block
    counted_from = 0 if zero_point else 2 ** (bits - 1)
    origin: Any = counted_from
    if zero_point:
        stored = unpack(packed_bytes(graph.tensors[zero_point]), bits, signed=False)
        origin = stored.reshape(columns, -1)[:, :blocks, None]

    def dequantize(codes: NDArray[np.int32]) -> NDArray[np.float32]:
        values: NDArray[np.float32] = (codes.reshape(columns, blocks, block) - origin).astype(np.float32)
        values *= scale.reshape(columns, blocks, 1)
        return values

    data_type, shape = UNSIGNED_OF[bits], (columns, blocks, block)
    scales = (node.input[2],)
    return PackedTensor(tensor, data_type, shape, (columns, k), scales, zero_point, dequantize, counted_from)


def _optional(node: onnx.NodeProto, place: int) -> str | None:
    return node.input[place] or None if place < len(node.input) else None


def _spread(array: Any, shape: tuple[int, ...], axis: int, block: int) -> Any:
    """Scales or zero points in a shape that fits the codes."""
    if block:
        return np.repeat(array, block, axis)[tuple(slice(size) for size in shape)]
    if np.ndim(array):
        return np.reshape(array, [-1 if d == axis % len(shape) else 1 for d in range(len(shape))])
    return array
