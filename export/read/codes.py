"""Integer codes as a file stores them: which tensors they are, how they are packed, which floats they stand for."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

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
QUANTIZERS = {  # operator -> which of its inputs is what
    "QuantizeLinear": {"scale": 1, "zero_point": 2},
    "DequantizeLinear": {"codes": 0, "scale": 1, "zero_point": 2},
    "MatMulNBits": {"codes": 1, "scale": 2, "zero_point": 3},
}


@dataclass(frozen=True)
class PackedTensor:
    """One tensor of codes.

    Attributes:
        name: of the initializer.
        dtype: ONNX's name of the type; of `MatMulNBits`, which hides its codes in bytes, UINT4 for instance.
        bits: of one code.
        shape: of the tensor of codes.
        scales: names of its scales.
        zero_point: name of its zero points.
        data: the bytes as they lie in the file; the first code is in the lowest bits of the first byte.
        elements: how many codes.
        weights: how many of them stand for a weight: all, unless MatMulNBits has filled up its blocks.
    """

    name: str
    dtype: str
    bits: int
    shape: tuple[int, ...]
    scales: tuple[str, ...]
    zero_point: str | None
    data: bytes
    elements: int
    weights: int
    dequantize: Callable[[NDArray[np.int32]], NDArray[np.float32]] = field(repr=False)

    @property
    def codes(self) -> NDArray[np.int32]:
        """In the order of the bytes, (elements,)."""
        return unpack(self.data, self.bits, signed=not self.dtype.startswith("U"))[: self.elements]

    @property
    def values(self) -> NDArray[np.float32]:
        """The number that each code stands for where the graph multiplies with it, (elements,)."""
        return self.dequantize(self.codes).astype(np.float32).ravel()


def initializer_roles(model: onnx.ModelProto) -> dict[str, str]:
    """Initializer -> "codes", "scale" or "zero_point", for those that quantize."""
    roles: dict[str, str] = {}
    for node in model.graph.node:
        for role, place in QUANTIZERS.get(node.op_type, {}).items():
            if place < len(node.input):
                roles[node.input[place]] = role
    for tensor in packed_tensors(model):
        roles.update(dict.fromkeys(tensor.scales, "scale"))
    return {t.name: roles[t.name] for t in model.graph.initializer if t.name in roles}


def code_arrays(model: onnx.ModelProto) -> Iterable[tuple[str, NDArray[np.generic]]]:
    """Name and unpacked codes of every quantized tensor in the file, one int8 or wider a code."""
    roles = initializer_roles(model)
    hidden = {node.input[1]: node for node in model.graph.node if node.op_type == "MatMulNBits"}
    for tensor in model.graph.initializer:
        if tensor.name in hidden:
            yield tensor.name, _unhidden(hidden[tensor.name], tensor)
        elif roles.get(tensor.name) == "codes":
            array = numpy_helper.to_array(tensor)
            yield tensor.name, array.astype(np.int32 if tensor.data_type == TensorProto.INT32 else np.int16)


def packed_tensors(model: onnx.ModelProto) -> Iterator[PackedTensor]:
    """Every quantized tensor of a model, in the order in which the graph reads them."""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    seen = set()
    for node in model.graph.node:
        place = QUANTIZERS.get(node.op_type, {}).get("codes")
        name = "" if place is None else node.input[place]
        if name not in tensors or name in seen:
            continue
        seen.add(name)
        if node.op_type == "MatMulNBits":
            yield _hidden(node, tensors)
        else:
            yield _declared(node, tensors, list(_following(node, readers, tensors)))


def unpack(data: bytes, bits: int, signed: bool) -> NDArray[np.int32]:
    """Codes of 2, 4 or 8 bits out of bytes, lowest bits first; of 32 bits out of little-endian words."""
    if bits == 32:
        return np.frombuffer(data, "<i4").astype(np.int32)
    places = np.arange(0, 8, bits, dtype=np.uint8)
    codes = (np.frombuffer(data, np.uint8)[:, None] >> places & (2**bits - 1)).ravel().astype(np.int32)
    return np.asarray((codes ^ 2 ** (bits - 1)) - 2 ** (bits - 1) if signed else codes, dtype=np.int32)


def packed_bytes(tensor: TensorProto) -> bytes:
    """The numbers of a tensor as they lie in a file, whether they came as raw data or as integers."""
    return tensor.raw_data or numpy_helper.from_array(numpy_helper.to_array(tensor)).raw_data


def _declared(node: onnx.NodeProto, tensors: dict[str, TensorProto], following: list[tuple[str, str]]) -> PackedTensor:
    """DequantizeLinear: (code - zero_point) * scale, a scale for the tensor, each index of an axis or each block."""
    tensor, scale = tensors[node.input[0]], numpy_helper.to_array(tensors[node.input[1]])
    zero_point = _optional(node, 2)
    origin = numpy_helper.to_array(tensors[zero_point]).astype(np.int32) if zero_point else np.int32(0)
    shape, attributes = tuple(tensor.dims), _attributes(node)
    axis, block = attributes.get("axis", 1), attributes.get("block_size", 0)

    def dequantize(codes: NDArray[np.int32]) -> NDArray[np.float32]:
        values: Any = (codes.reshape(shape) - _spread(origin, shape, axis, block)).astype(np.float32)
        values = values * _spread(scale, shape, axis, block)
        for operator, name in following:
            other = numpy_helper.to_array(tensors[name])
            values = values + other if operator == "Add" else values * other
        return np.asarray(values)

    return PackedTensor(
        name=tensor.name,
        dtype=TensorProto.DataType.Name(tensor.data_type),
        bits=INTEGER_BITS[tensor.data_type],
        shape=shape,
        scales=(node.input[1], *(name for operator, name in following if operator == "Mul")),
        zero_point=zero_point,
        data=packed_bytes(tensor),
        elements=math.prod(shape),
        weights=math.prod(shape),
        dequantize=dequantize,
    )


def _following(
    node: onnx.NodeProto, readers: dict[str, list[onnx.NodeProto]], tensors: dict[str, TensorProto]
) -> Iterator[tuple[str, str]]:
    """Half-shifted grids take DequantizeLinear, Add and Mul: the operators behind the first, and their tensors."""
    while len(found := readers.get(node.output[0], [])) == 1:
        (node,) = found
        if node.op_type not in ("Add", "Mul") or node.input[1] not in tensors:
            return
        yield node.op_type, node.input[1]


def _hidden(node: onnx.NodeProto, tensors: dict[str, TensorProto]) -> PackedTensor:
    """com.microsoft::MatMulNBits: bytes (columns, blocks, bytes a block), a scale and a zero point for each block."""
    tensor, scale, attributes = tensors[node.input[1]], numpy_helper.to_array(tensors[node.input[2]]), _attributes(node)
    bits, columns, block = attributes.get("bits", 4), attributes["N"], attributes["block_size"]
    data, zero_point = packed_bytes(tensor), _optional(node, 3)
    blocks = len(data) * 8 // bits // columns // block
    origin: Any = 2 ** (bits - 1)
    if zero_point:
        stored = unpack(packed_bytes(tensors[zero_point]), bits, signed=False)
        origin = stored.reshape(columns, -1)[:, :blocks, None]

    def dequantize(codes: NDArray[np.int32]) -> NDArray[np.float32]:
        values = (codes.reshape(columns, blocks, block) - origin).astype(np.float32)
        return np.asarray(values * scale.reshape(columns, blocks, 1))

    return PackedTensor(
        name=tensor.name,
        dtype=f"UINT{bits}",
        bits=bits,
        shape=(columns, blocks, block),
        scales=(node.input[2],),
        zero_point=zero_point,
        data=data,
        elements=columns * blocks * block,
        weights=columns * attributes["K"],
        dequantize=dequantize,
    )


def _unhidden(node: onnx.NodeProto, tensor: TensorProto) -> NDArray[np.int16]:
    """The codes of MatMulNBits (out, in), signed where no zero points say otherwise."""
    attributes = _attributes(node)
    codes = unpack(packed_bytes(tensor), attributes["bits"], signed=False).reshape(attributes["N"], -1)
    if not _optional(node, 3):
        codes -= 2 ** (attributes["bits"] - 1)
    return codes[:, : attributes["K"]].astype(np.int16)


def _optional(node: onnx.NodeProto, place: int) -> str | None:
    return node.input[place] or None if place < len(node.input) else None


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def _spread(array: Any, shape: tuple[int, ...], axis: int, block: int) -> Any:
    """Scales or zero points in a shape that fits the codes."""
    if block:
        return np.repeat(array, block, axis)[tuple(slice(size) for size in shape)]
    if np.ndim(array):
        return np.reshape(array, [-1 if d == axis % len(shape) else 1 for d in range(len(shape))])
    return array
