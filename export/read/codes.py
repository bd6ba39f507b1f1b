"""Integer codes as a file stores them: how they are packed, and which floats they stand for."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

UINT2, INT2 = 25, 26  # onnx before 1.20 has no names for them
INTEGER_BITS: dict[int, int] = {
    INT2: 2,
    UINT2: 2,
    TensorProto.INT4: 4,
    TensorProto.UINT4: 4,
    TensorProto.INT8: 8,
    TensorProto.UINT8: 8,
    TensorProto.INT16: 16,
    TensorProto.UINT16: 16,
    TensorProto.INT32: 32,
    TensorProto.INT64: 64,
}
UNSIGNED = {UINT2, TensorProto.UINT4, TensorProto.UINT8, TensorProto.UINT16}
EIGHT_BITS = {TensorProto.INT8, TensorProto.UINT8}
FLOAT_BITS: dict[int, int] = {
    TensorProto.FLOAT: 32,
    TensorProto.FLOAT16: 16,
    TensorProto.BFLOAT16: 16,
    TensorProto.DOUBLE: 64,
}


@dataclass(frozen=True)
class PackedTensor:
    """One tensor of codes.

    Attributes:
        tensor: the initializer.
        data_type: of the codes; of MatMulNBits, which hides them in bytes, UINT4 for instance.
        shape: of the tensor of codes.
        weight_shape: of what they stand for: the same, but (out, in) of MatMulNBits, which fills up its blocks.
        scales: names of its scales.
        zero_point: name of its zero points.
        counted_from: the code that stands for zero where the operator says so itself, and no zero point.
        dequantize: codes -> the numbers they stand for.
    """

    tensor: TensorProto = field(repr=False)
    data_type: int
    shape: tuple[int, ...]
    weight_shape: tuple[int, ...]
    scales: tuple[str, ...]
    zero_point: str | None
    dequantize: Callable[[NDArray[np.int32]], NDArray[np.float32]] = field(repr=False)
    counted_from: int = 0

    @property
    def name(self) -> str:
        return self.tensor.name

    @property
    def dtype(self) -> str:
        """ONNX's name of the type."""
        return f"{'U' if self.data_type in UNSIGNED else ''}INT{self.bits}"

    @property
    def bits(self) -> int:
        """Of one code."""
        return INTEGER_BITS[self.data_type]

    @property
    def elements(self) -> int:
        """How many codes."""
        return math.prod(self.shape)

    @property
    def data(self) -> bytes:
        """The bytes as they lie in the file; the first code is in the lowest bits of the first byte."""
        return packed_bytes(self.tensor)

    @property
    def codes(self) -> NDArray[np.int32]:
        """In the order of the bytes, (elements,)."""
        return unpack(self.data, self.bits, signed=self.data_type not in UNSIGNED)[: self.elements]

    @property
    def values(self) -> NDArray[np.float32]:
        """The number that each code stands for where the graph multiplies with it, (elements,)."""
        return self.dequantize(self.codes).astype(np.float32, copy=False).ravel()

    def as_weight(self, numbers: NDArray[np.generic]) -> NDArray[np.generic]:
        """Codes or values in the shape of what they stand for, without what fills up blocks."""
        if self.weight_shape == self.shape:
            return numbers.reshape(self.shape)
        rows, columns = self.weight_shape
        return numbers.reshape(rows, -1)[:, :columns]


def code_range(data_type: int) -> tuple[int, int]:
    """The smallest and the largest code of an integer type."""
    codes = 1 << INTEGER_BITS[data_type]
    return (0, codes - 1) if data_type in UNSIGNED else (-codes // 2, codes // 2 - 1)


def narrow_type(table: NDArray[np.generic]) -> int | None:
    """The type of codes of which a table, (256, codes in a byte), says which lie in a byte; None if it says no such."""
    for data_type, bits in INTEGER_BITS.items():
        if bits < 8 and table.shape == (256, 8 // bits):
            codes = unpack(bytes(range(256)), bits, signed=data_type not in UNSIGNED)
            if np.array_equal(table.ravel(), codes):
                return data_type
    return None


def unpack(data: bytes, bits: int, signed: bool) -> NDArray[np.int32]:
    """Codes of 2, 4 or 8 bits out of bytes, lowest bits first; wider ones out of little-endian words."""
    if bits > 8:
        return np.frombuffer(data, f"<{'i' if signed else 'u'}{bits // 8}").astype(np.int32)
    places = np.arange(0, 8, bits, dtype=np.uint8)
    in_bytes: NDArray[np.uint8] = np.frombuffer(data, np.uint8)[:, None] >> places & (2**bits - 1)
    codes = in_bytes.ravel().astype(np.int32)
    if signed:
        codes ^= 2 ** (bits - 1)
        codes -= 2 ** (bits - 1)
    return codes


def packed_bytes(tensor: TensorProto) -> bytes:
    """The numbers of a tensor as they lie in a file, whether they came as raw data or as integers."""
    return tensor.raw_data or numpy_helper.from_array(numpy_helper.to_array(tensor)).raw_data
