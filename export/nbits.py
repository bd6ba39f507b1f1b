"""com.microsoft::MatMulNBits: how codes lie in its bytes, and how to read them back. Needs no torch.

The weight (out, in) is cut into blocks of `block_size` neighbours in a row; each has a scale and perhaps a zero point.
Codes are unsigned, the lowest bits of a byte first: `w = (code - zero_point) * scale`, where a zero point that is not
written is 2^(bits - 1). A short last block is filled up with zeros.

Source: onnxruntime, docs/ContribOperators.md, "com.microsoft.MatMulNBits".
"""

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

DOMAIN, OP_TYPE = "com.microsoft", "MatMulNBits"
Codes = NDArray[np.uint8]


def pack_weight(codes: Codes, bits: int, block_size: int) -> Codes:
    """(out, in) -> (out, blocks, block_size * bits / 8)."""
    rows, columns = codes.shape
    blocks = -(-columns // block_size)
    padded = np.pad(codes, ((0, 0), (0, blocks * block_size - columns)))
    return _pack(padded, bits).reshape(rows, blocks, -1)


def pack_zero_points(zero_points: Codes, bits: int) -> Codes:
    """(out, blocks) -> (out, bytes), each row filled up to whole bytes."""
    return _pack(np.pad(zero_points, ((0, 0), (0, -zero_points.shape[1] % (8 // bits)))), bits)


def unpack(packed: Codes, bits: int, columns: int) -> Codes:
    """Undo either, given how many columns there were: (out, columns)."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    codes = (packed[..., None] >> shifts) & np.uint8(2**bits - 1)
    return np.asarray(codes.reshape(len(packed), -1)[:, :columns])


def stored_codes(node: onnx.NodeProto, packed: onnx.TensorProto) -> NDArray[np.int16]:
    """The codes (out, in) of a MatMulNBits node's weight: signed, unless it has zero points."""
    sizes = attributes(node)
    codes = unpack(numpy_helper.to_array(packed), sizes["bits"], sizes["K"]).astype(np.int16)
    return codes if has_zero_points(node) else codes - np.int16(2 ** (sizes["bits"] - 1))


def has_zero_points(node: onnx.NodeProto) -> bool:
    return len(node.input) > 3 and bool(node.input[3])


def is_nbits(node: onnx.NodeProto) -> bool:
    return (node.domain, node.op_type) == (DOMAIN, OP_TYPE)


def attributes(node: onnx.NodeProto) -> dict[str, int]:
    """K (in), N (out), bits, block_size and accuracy_level."""
    return {attribute.name: int(attribute.i) for attribute in node.attribute}


def _pack(codes: Codes, bits: int) -> Codes:
    """(rows, columns) -> (rows, columns * bits / 8)."""
    parts = codes.reshape(len(codes), -1, 8 // bits) << np.arange(0, 8, bits, dtype=np.uint8)
    return np.asarray(np.bitwise_or.reduce(parts, axis=-1), dtype=np.uint8)
