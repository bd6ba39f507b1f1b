"""What is really in the file: every initializer with its type, its shape and its bytes."""

import math
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from export.files import file_bytes, load
from export.nbits import attributes, is_nbits, stored_codes

INTEGER_BITS: dict[int, int] = {
    TensorProto.INT2: 2,
    TensorProto.UINT2: 2,
    TensorProto.INT4: 4,
    TensorProto.UINT4: 4,
    TensorProto.INT8: 8,
    TensorProto.UINT8: 8,
    TensorProto.INT32: 32,
    TensorProto.INT64: 64,
}
FLOAT_BITS: dict[int, int] = {
    TensorProto.FLOAT: 32,
    TensorProto.FLOAT16: 16,
    TensorProto.BFLOAT16: 16,
    TensorProto.DOUBLE: 64,
}


@dataclass(frozen=True)
class Row:
    """One initializer. `role` is "codes", "scale", "zero_point", or "float" / "integer" for all others."""

    name: str
    role: str
    dtype: str
    shape: tuple[int, ...]
    elements: int
    bytes: int


@dataclass(frozen=True)
class Audit:
    """All initializers of a file, and totals.

    Attributes:
        rows: one an initializer, in the file's order.
        file_bytes: size of the whole file.
        code_bytes: what the integer codes of quantized tensors take.
        fp32_bytes: what all tensors would take in float32, scales and zero points left out.
        float_matrices: names of float initializers with two dimensions or more that are not scales:
            empty when no float copy of a weight is left.
    """

    rows: list[Row]
    file_bytes: int
    code_bytes: int
    fp32_bytes: int
    float_matrices: list[str]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def audit(path: str | os.PathLike[str]) -> Audit:
    """Read a file and list what it holds.

    Raises:
        FileError: the file cannot be read or is not a valid ONNX model.
    """
    model = load(path)
    roles = initializer_roles(model)
    packed = _packed(model)
    rows = [
        _packed_row(tensor, packed[tensor.name]) if tensor.name in packed else _row(tensor, roles.get(tensor.name))
        for tensor in model.graph.initializer
    ]
    return Audit(
        rows=rows,
        file_bytes=file_bytes(path),
        code_bytes=sum(row.bytes for row in rows if row.role == "codes"),
        fp32_bytes=sum(4 * row.elements for row in rows if row.role in ("codes", "float")),
        float_matrices=[row.name for row in rows if row.role == "float" and len(row.shape) > 1],
    )


def initializer_roles(model: onnx.ModelProto) -> dict[str, str]:
    """Initializer -> its place in a QuantizeLinear, DequantizeLinear or MatMulNBits, for those that have one."""
    roles: dict[str, str] = {}
    for node in model.graph.node:
        if is_nbits(node):
            roles.update(zip(node.input[1:4], ("codes", "scale", "zero_point"), strict=False))
        elif node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            roles.update(zip(node.input, ("codes", "scale", "zero_point"), strict=False))
    return {t.name: roles[t.name] for t in model.graph.initializer if t.name in roles}


def code_arrays(model: onnx.ModelProto) -> Iterable[tuple[str, NDArray[np.generic]]]:
    """Name and unpacked codes of every quantized tensor in the file, one int8 or wider a code."""
    roles, packed = initializer_roles(model), _packed(model)
    for tensor in model.graph.initializer:
        if tensor.name in packed:
            yield tensor.name, stored_codes(packed[tensor.name], tensor)
        elif roles.get(tensor.name) == "codes":
            array = numpy_helper.to_array(tensor)
            yield tensor.name, array.astype(np.int32 if tensor.data_type == TensorProto.INT32 else np.int16)


def _packed(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    """Packed weight -> the MatMulNBits node that reads it."""
    return {node.input[1]: node for node in model.graph.node if is_nbits(node)}


def _packed_row(tensor: TensorProto, node: onnx.NodeProto) -> Row:
    """A weight as MatMulNBits packs it: named by the type of its codes, (out, in), not by that of the bytes."""
    sizes = attributes(node)
    shape = sizes["N"], sizes["K"]
    return Row(tensor.name, "codes", f"UINT{sizes['bits']}", shape, math.prod(shape), math.prod(tensor.dims))


def _row(tensor: TensorProto, role: str | None) -> Row:
    elements = int(np.prod(tensor.dims, dtype=np.int64))
    bits = INTEGER_BITS.get(tensor.data_type) or FLOAT_BITS.get(tensor.data_type)
    size = (elements * bits + 7) // 8 if bits else numpy_helper.to_array(tensor).nbytes
    return Row(
        name=tensor.name,
        role=role or ("float" if tensor.data_type in FLOAT_BITS else "integer"),
        dtype=TensorProto.DataType.Name(tensor.data_type),
        shape=tuple(tensor.dims),
        elements=elements,
        bytes=size,
    )
