"""Where the codes that an operator reads lie in the file.

As they are, or narrow ones in bytes that a session unpacks once, as it loads:

Cast, Gather   each byte is the index of the codes that lie in it
Reshape        into the shape of the weight

onnxruntime folds these three into codes of eight bits, for which it has integer kernels: the file is as small as its
codes are narrow, and as quick as one of bytes.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx
from onnx import TensorProto

from export.read.codes import INTEGER_BITS, narrow_type

if TYPE_CHECKING:
    from export.read.graph import Graph


@dataclass(frozen=True)
class StoredCodes:
    """Codes in the file.

    Attributes:
        tensor: the initializer.
        data_type: of the codes in it.
        shape: of the codes.
        read_as: the type that the operator reads.
        nodes: outputs of the operators in between, all of which carry codes.
    """

    tensor: TensorProto
    data_type: int
    shape: tuple[int, ...]
    read_as: int
    nodes: frozenset[str] = frozenset()


def find_codes(graph: "Graph", name: str) -> StoredCodes | None:
    """The codes that a value is; None if it is computed from something else, or is no codes."""
    stored = graph.tensors.get(name)
    if stored is not None:
        kind = stored.data_type
        return StoredCodes(stored, kind, tuple(stored.dims), kind) if kind in INTEGER_BITS else None
    reshape = _producer(graph, name, "Reshape")
    gather = reshape and _producer(graph, reshape.input[0], "Gather")
    cast = gather and _producer(graph, gather.input[1], "Cast")
    if not (reshape and gather and cast) or not graph.tensors.keys() >= {cast.input[0], gather.input[0]}:
        return None
    packed, table = graph.tensors[cast.input[0]], graph.tensors[gather.input[0]]
    narrow = narrow_type(graph.array(table.name))
    if narrow is None or packed.data_type != TensorProto.UINT8 or reshape.input[1] not in graph.tensors:
        return None
    shape = tuple(int(size) for size in graph.array(reshape.input[1]))
    nodes = frozenset(node.output[0] for node in (reshape, gather, cast))
    return StoredCodes(packed, narrow, shape, table.data_type, nodes)


def _producer(graph: "Graph", name: str, op_type: str) -> onnx.NodeProto | None:
    node = graph.producers.get(name)
    return node if node is not None and node.op_type == op_type else None
