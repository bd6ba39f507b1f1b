"""What is really in the file: every tensor with its type, its shape, its bytes and the bits that a weight takes."""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from export.read.codes import FLOAT_BITS, INTEGER_BITS, PackedTensor
from export.read.files import Source, file_bytes
from export.read.graph import Graph

PARTS = {"codes": "codes", "scale": "scales", "zero_point": "zero_points"}


@dataclass(frozen=True)
class Row:
    """One tensor of the file.

    Attributes:
        name: of the initializer, or of what a Constant gives.
        role: "codes", "scale", "zero_point", or "float" / "integer" for all others.
        dtype: ONNX's name of the type.
        shape: as stored.
        elements: how many numbers; of codes how many codes.
        bytes: what they take at the width of their type, the last byte filled up.
        bits_per_weight: of codes only: their bits, with those of their scales and zero points, over all elements.
        flag: why it should not be there; empty when it may.
    """

    name: str
    role: str
    dtype: str
    shape: tuple[int, ...]
    elements: int
    bytes: int
    bits_per_weight: float | None = None
    flag: str = ""


@dataclass(frozen=True)
class Audit:
    """All tensors of a file, and totals.

    Attributes:
        rows: one a tensor, in the file's order.
        file_bytes: size of the whole file, which is the sum of `parts`.
        parts: what the bytes are: "codes", "scales", "zero_points", "others" (biases and all other tensors),
            "receipt" (the metadata), and "graph", all that is left: operators, names, shapes.
        minimum_bytes: the theoretical minimum: every number at the width of its type, no operator, no name, no
            receipt, and nothing that is flagged.
        fp32_bytes: what all tensors would take in float32, scales and zero points left out.
        float_matrices: names of float tensors with two dimensions or more that are not scales: empty when no weight
            was left in float.
        float_copies: names of float tensors that repeat a quantized one.
    """

    rows: list[Row]
    file_bytes: int
    parts: dict[str, int]
    minimum_bytes: int
    fp32_bytes: int
    float_matrices: list[str]
    float_copies: list[str]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def audit(path: Source) -> Audit:
    """Read a file and list what it holds.

    Raises:
        FileError: the file cannot be read or is not a valid ONNX model.
    """
    return audit_graph(Graph.open(path), file_bytes(path))


def audit_graph(graph: Graph, size: int) -> Audit:
    """`audit` of a graph that is open already, from a file of so many bytes."""
    tensors = list(_tensors(graph.model.graph))
    sizes = {name: _bytes(tensor) for name, tensor in tensors}
    rows = [_row(name, tensor, graph.roles.get(name), graph.packed, sizes) for name, tensor in tensors]

    parts = dict.fromkeys([*PARTS.values(), "others"], 0)
    for row in rows:
        parts[PARTS.get(row.role, "others")] += row.bytes
    parts["receipt"] = sum(entry.ByteSize() for entry in graph.model.metadata_props)
    parts["graph"] = size - sum(parts.values())
    return Audit(
        rows=rows,
        file_bytes=size,
        parts=parts,
        minimum_bytes=sum(row.bytes for row in rows if not row.flag),
        fp32_bytes=sum(4 * row.elements for row in rows if row.role in ("codes", "float") and not _is_copy(row)),
        float_matrices=[row.name for row in rows if row.role == "float" and len(row.shape) > 1],
        float_copies=[row.name for row in rows if _is_copy(row)],
    )


def _tensors(graph: onnx.GraphProto) -> Iterator[tuple[str, TensorProto]]:
    """Every tensor of a graph: initializers, and those inside operators and the graphs within them."""
    for tensor in graph.initializer:
        yield tensor.name, tensor
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield node.output[0] if node.op_type == "Constant" else f"{node.name}.{attribute.name}", attribute.t
            if attribute.HasField("g"):
                yield from _tensors(attribute.g)


def _row(
    name: str, tensor: TensorProto, role: str | None, packed: dict[str, PackedTensor], sizes: dict[str, int]
) -> Row:
    role = role or ("float" if tensor.data_type in FLOAT_BITS else "integer")
    bits_per_weight = None
    elements = math.prod(tensor.dims)
    if name in packed:
        codes = packed[name]
        elements = math.prod(codes.weight_shape)
        parts = (name, *codes.scales, codes.zero_point)
        if codes.bits <= 8:  # INT32 codes are biases
            bits_per_weight = 8 * sum(sizes[part] for part in parts if part in sizes) / elements
    return Row(
        name=name,
        role=role,
        dtype=TensorProto.DataType.Name(tensor.data_type),
        shape=tuple(tensor.dims),
        elements=elements,
        bytes=sizes[name],
        bits_per_weight=bits_per_weight,
        flag=_flag(tensor, packed) if role == "float" else "",
    )


def _flag(tensor: TensorProto, packed: dict[str, PackedTensor]) -> str:
    """Why a float tensor should not be there."""
    elements = math.prod(tensor.dims)
    for codes in packed.values():
        if elements == codes.elements > 1 and _same_numbers(numpy_helper.to_array(tensor), codes.values):
            return f"float copy of {codes.name}"
    return "float weight" if len(tensor.dims) > 1 else ""


def _same_numbers(values: NDArray[np.generic], others: NDArray[np.float32]) -> bool:
    """In any order: a copy may be transposed."""
    return bool(np.array_equal(np.sort(values.astype(np.float32), axis=None), np.sort(others)))


def _is_copy(row: Row) -> bool:
    return row.flag.startswith("float copy")


def _bytes(tensor: TensorProto) -> int:
    elements = math.prod(tensor.dims)
    bits = INTEGER_BITS.get(tensor.data_type) or FLOAT_BITS.get(tensor.data_type)
    return (elements * bits + 7) // 8 if bits else numpy_helper.to_array(tensor).nbytes
