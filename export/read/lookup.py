"""Tables of codes of which only the rows that are looked up become numbers.

Gather               rows of codes; of narrow ones rows of bytes
Cast, Gather         each byte is the index of the codes that lie in it
Cast, Sub, Add, Mul  (code - zero point + shift) * scale, of the same rows

DequantizeLinear in front of the Gather would unpack the whole vocabulary in every call.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from export.read.codes import EIGHT_BITS, INTEGER_BITS, PackedTensor, narrow_type

if TYPE_CHECKING:
    from export.read.graph import Graph


@dataclass(frozen=True)
class Lookup:
    """One table where it is read.

    Attributes:
        tensor: its codes.
        indices: name of what says which rows.
        numbers: name of the rows when they are numbers.
        nodes: outputs of all operators from the first to the last.
        codes: those of them that carry codes.
    """

    tensor: PackedTensor
    indices: str
    numbers: str
    nodes: frozenset[str]
    codes: frozenset[str]


def codes_in_bytes(bits: int, signed: bool) -> NDArray[np.int8]:
    """Byte -> the codes that lie in it, the lowest bits first: (256, codes in a byte)."""
    codes = np.arange(256)[:, None] >> np.arange(0, 8, bits) & (1 << bits) - 1
    return np.where(signed & (codes >> bits - 1 == 1), codes - (1 << bits), codes).astype(np.int8)


def find_lookup(graph: "Graph", node: onnx.NodeProto) -> Lookup | None:
    """The lookup that begins with a node, if one does."""
    stored = graph.tensors.get(node.input[0]) if node.op_type == "Gather" else None
    if stored is None or stored.data_type not in EIGHT_BITS or graph.attribute(node, "axis", 0) or len(stored.dims) < 2:
        return None
    walk = _Walk(graph, node)
    data_type, bits, shape = stored.data_type, 8, list(stored.dims)
    if walk.passes("Cast", to=TensorProto.INT32) and (table := walk.read_by_index()) is not None:
        found = narrow_type(table)
        if found is None or stored.data_type != TensorProto.UINT8 or not walk.passes("Reshape"):
            return None
        data_type, bits = found, INTEGER_BITS[found]
        shape[-1] *= 8 // bits
    codes = frozenset(walk.passed)
    if not walk.passes("Cast", to=TensorProto.FLOAT):
        return None
    zero_point = walk.operand("Sub")
    shift = walk.operand("Add")
    scale = walk.operand("Mul")
    if scale is None:
        return None
    columns = int(np.prod(shape[1:]))
    if len(shape) == 3 and not walk.passes("Reshape"):
        return None
    columns = walk.kept_columns() or columns

    def dequantize(numbers: NDArray[np.int32]) -> NDArray[np.float32]:
        values: Any = numbers.reshape(shape).astype(np.float32)
        if zero_point is not None:
            values = values - graph.array(zero_point).astype(np.float32)
        if shift is not None:
            values = values + graph.array(shift)
        return np.asarray(values * graph.array(scale))

    tensor = PackedTensor(stored, data_type, tuple(shape), (shape[0], columns), (scale,), zero_point, dequantize)
    return Lookup(tensor, node.input[1], walk.last.output[0], frozenset(walk.passed), codes)


class _Walk:
    """From a lookup of codes along the only reader of each result."""

    def __init__(self, graph: "Graph", node: onnx.NodeProto) -> None:
        self.graph, self.indices, self.last = graph, node.input[1], node
        self.scope, self.passed = node.name.rpartition("/")[0], [node.output[0]]

    def _next(self, op_type: str) -> onnx.NodeProto | None:
        node = self.graph.reader(self.last)
        is_it = node is not None and node.op_type == op_type and node.name.rpartition("/")[0] == self.scope
        return node if is_it else None

    def _pass(self, node: onnx.NodeProto) -> None:
        self.last = node
        self.passed.append(node.output[0])

    def passes(self, op_type: str, **attributes: int) -> bool:
        """Go on if an operator of this kind follows."""
        node = self._next(op_type)
        if node is None or any(self.graph.attribute(node, name) != value for name, value in attributes.items()):
            return False
        self._pass(node)
        return True

    def kept_columns(self) -> int | None:
        """Go on if the first columns of each row are kept and no others, and answer how many."""
        node = self._next("Slice")
        if node is None or len(node.input) != 4 or any(name not in self.graph.tensors for name in node.input[1:]):
            return None
        start, end, axis = (self.graph.array(name).tolist() for name in node.input[1:])
        if (start, axis) != ([0], [-1]):  # a model's own Slice of the rows
            return None
        self._pass(node)
        return int(end[0])

    def read_by_index(self) -> NDArray[Any] | None:
        """Go on if the result is an index into a table, and answer the table."""
        node = self._next("Gather")
        if node is None or node.input[1] != self.last.output[0] or node.input[0] not in self.graph.tensors:
            return None
        self._pass(node)
        return self.graph.array(node.input[0])

    def operand(self, op_type: str) -> str | None:
        """Go on if the result is combined with an initializer, or with the same rows of one, and answer which."""
        node = self._next(op_type)
        if node is None or node.input[0] != self.last.output[0]:
            return None
        name, beside = node.input[1], []
        while (producer := self.graph.producers.get(name)) is not None:
            if producer.op_type not in ("Cast", "Gather") or (
                producer.op_type == "Gather" and producer.input[1] != self.indices
            ):
                return None
            beside.append(name)
            name = producer.input[0]
        if name not in self.graph.tensors:
            return None
        self.passed += beside
        self._pass(node)
        return name
