"""The marker operators, and what they and some of torch's own become in ONNX.

torch.export carries a marker through untouched; one line of onnxscript turns it into QuantizeLinear and
DequantizeLinear. Training never sees a marker, and none can be run on numbers.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from onnxscript import opset21
from torch import Tensor

from export.read.lookup import codes_in_bytes
from export.write.attention import attention_onnx
from export.write.recurrent import recurrence_onnx

op: Any = opset21
OF_ITS_SHAPE = {
    "QuantizeLinear",
    "DequantizeLinear",
    "LayerNormalization",
    "Gelu",
    "Relu",
    "Tanh",
    "Sigmoid",
    "Softmax",
}
OF_EQUAL_SHAPES = {"Add", "Sub", "Mul"}


torch.library.define(
    "qat::dequantize", "(Tensor codes, Tensor scale, Tensor? zero_point, int axis, int block_size) -> Tensor"
)
torch.library.define("qat::quantize_dequantize", "(Tensor x, Tensor scale, Tensor zero_point) -> Tensor")
torch.library.define("qat::unpack", "(Tensor bytes, int bits, bool signed, int[] shape) -> Tensor")
torch.library.define(
    "qat::rows",
    "(Tensor indices, Tensor codes, Tensor scale, Tensor? zero_point, int bits, bool signed, float shift, int columns)"
    " -> Tensor",
)


@torch.library.register_fake("qat::dequantize")  # type: ignore[untyped-decorator]
def _(codes: Tensor, scale: Tensor, zero_point: Tensor | None, axis: int, block_size: int) -> Tensor:
    return torch.empty_like(codes, dtype=scale.dtype)


@torch.library.register_fake("qat::quantize_dequantize")  # type: ignore[untyped-decorator]
def _(x: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    return torch.empty_like(x)


@torch.library.register_fake("qat::unpack")  # type: ignore[untyped-decorator]
def _(codes: Tensor, bits: int, signed: bool, shape: list[int]) -> Tensor:
    return torch.empty(shape, dtype=torch.int8 if signed else torch.uint8)


@torch.library.register_fake("qat::rows")  # type: ignore[untyped-decorator]
def _(indices: Tensor, codes: Tensor, scale: Tensor, *settings: Any) -> Tensor:
    return torch.empty((*indices.shape, settings[-1]), dtype=scale.dtype)


def _dequantize_onnx(codes: Any, scale: Any, zero_point: Any, axis: int, block_size: int) -> Any:
    if block_size:
        return op.DequantizeLinear(codes, scale, zero_point, axis=axis, block_size=block_size)
    return op.DequantizeLinear(codes, scale, zero_point, axis=axis)


def _quantize_dequantize_onnx(x: Any, scale: Any, zero_point: Any) -> Any:
    return op.DequantizeLinear(op.QuantizeLinear(x, scale, zero_point), scale, zero_point)


def _unpack_onnx(packed: Any, bits: int, signed: bool, shape: list[int]) -> Any:
    """Bytes of several codes as codes of a byte each, in standard operators that a session folds as it loads."""
    table = op.Constant(value=ir.tensor(codes_in_bytes(bits, signed).astype(np.int8 if signed else np.uint8)))
    return op.Reshape(op.Gather(table, op.Cast(packed, to=ir.DataType.INT32)), shape)


def _rows_onnx(
    indices: Any,
    codes: Any,
    scale: Any,
    zero_point: Any,
    bits: int,
    signed: bool,
    shift: float,
    columns: int,
) -> Any:
    """The rows of a table that are looked up, each a row of codes first and numbers afterwards.

    Bytes of narrow codes are indices into a table of the codes that each byte holds: standard operators, and half the
    time of com.microsoft::GatherBlockQuantized.

    Args:
        codes: (rows, width) or (rows, groups, width), codes of 8 bits or bytes of narrower ones.
        scale, zero_point: of one number, or such that they fit codes.
    """
    leading, groups, width = [0] * len(indices.shape), list(codes.shape[1:-1]), codes.shape[-1] * 8 // bits

    def looked_up(table: Any) -> Any:
        return op.Gather(table, indices) if len(table.shape) else table

    y = looked_up(codes)
    if bits < 8:
        table = op.Constant(value=ir.tensor(codes_in_bytes(bits, signed)))
        y = op.Reshape(op.Gather(table, op.Cast(y, to=ir.DataType.INT32)), [*leading, *groups, width])
    y = op.Cast(y, to=ir.DataType.FLOAT)
    if zero_point is not None:
        y = op.Sub(y, op.Cast(looked_up(zero_point), to=ir.DataType.FLOAT))
    if shift:
        y = op.Add(y, shift)
    y = op.Mul(y, looked_up(scale))
    if groups:
        width *= groups[0]
        y = op.Reshape(y, [*leading, width])
    return y if width == columns else op.Slice(y, [0], [columns], [-1])


def _linear_onnx(x: Any, weight: Any, bias: Any = None) -> Any:
    """Gemm for any rank: a default session would turn DequantizeLinear -> MatMul into a kernel that rounds x."""
    features_out, features_in = weight.shape
    return _gemm(x, weight, bias, features_in, features_out, transB=1)


def _matmul_onnx(x: Any, other: Any) -> Any:
    """The same where a model multiplies by a weight itself: `x @ layer.weight.T`, or a linear layer under vmap."""
    producer = other.producer()
    if producer is not None and producer.op_type == "Transpose":
        producer = producer.inputs[0].producer()
    if producer is None or producer.op_type != "DequantizeLinear" or len(x.shape) < 2 or len(other.shape) != 2:
        return op.MatMul(x, other)
    features_in, features_out = other.shape
    return _gemm(x, other, None, features_in, features_out, transB=0)


def _gemm(x: Any, weight: Any, bias: Any, features_in: int, features_out: int, transB: int) -> Any:
    if len(x.shape) == 2:
        return op.Gemm(x, weight, bias, transB=transB)
    y = op.Gemm(op.Reshape(x, [-1, features_in]), weight, bias, transB=transB)
    leading = list(x.shape[:-1])
    if sum(not isinstance(size, int) for size in leading) < 2:
        return op.Reshape(y, [*(size if isinstance(size, int) else -1 for size in leading), features_out])
    return op.Reshape(y, op.Concat(_leading(x), op.Constant(value_ints=[features_out]), axis=0))


def _leading(x: Any) -> Any:
    """The sizes of all axes but the last: of the first tensor from which x has them, so that nothing is computed to be
    measured alone, and all layers ask but once."""
    while (node := x.producer()) is not None:
        if node.op_type == "Reshape" and (known := _known_leading(x, node.inputs[1].producer())) is not None:
            return known
        source = node.inputs[0] if node.op_type in OF_ITS_SHAPE else None
        if node.op_type in OF_EQUAL_SHAPES and x.shape is not None:
            source = next((y for y in node.inputs if y.shape == x.shape), None)
        if source is None:
            break
        x = source
    return op.Shape(x, start=0, end=-1)


def _known_leading(x: Any, sizes: Any) -> Any:
    """What a Reshape to `sizes` was told of all axes of x but the last, if that is how they were put together."""
    if sizes is None or sizes.op_type != "Concat" or len(sizes.inputs) != 2:
        return None
    shape = sizes.inputs[0].producer()
    if shape is None or shape.op_type != "Shape" or shape.attributes.get_int("start", 0):
        return None
    measured = shape.inputs[0]
    is_whole = shape.attributes.get_int("end", 0) == -1 and None not in (x.shape, measured.shape)
    return sizes.inputs[0] if is_whole and len(measured.shape) == len(x.shape) else None


def _view_onnx(x: Any, size: Any) -> Any:
    """One size that varies is -1 in a Reshape, which takes a single -1; of more, all have to be computed."""
    if (node := x.producer()) is not None and node.op_type == "Reshape":
        x = node.inputs[0]
    if -1 not in size and sum(not isinstance(n, int) for n in size) == 1:
        return op.Reshape(x, [n if isinstance(n, int) else -1 for n in size])
    parts = [op.Constant(value_ints=[n]) if isinstance(n, int) else op.Reshape(n, [-1]) for n in size]
    return op.Reshape(x, op.Concat(*parts, axis=0), allowzero=int(-1 not in size))  # beside -1 no size may be zero


def _flatten_onnx(x: Any, start_dim: int = 0, end_dim: int = -1) -> Any:
    """As torch does by a view, without a second trace to make one of it."""
    sizes = list(x.shape) or [1]
    first, last = start_dim % len(sizes), end_dim % len(sizes)
    ends = [(i, i + 1) for i in range(first)], [(first, last + 1)], [(i, i + 1) for i in range(last + 1, len(sizes))]
    whole = [(a, b, all(isinstance(n, int) for n in sizes[a:b])) for part in ends for a, b in part]
    if sum(not is_known for *_, is_known in whole) < 2:
        return op.Reshape(x, [math.prod(sizes[a:b]) if is_known else -1 for a, b, is_known in whole])
    parts = [op.ReduceProd(op.Shape(x, start=a, end=b), keepdims=1) for a, b, _ in whole]
    return op.Reshape(x, op.Concat(*parts, axis=0), allowzero=1)


def _grouped_mm_onnx(x: Any, weight: Any, offs: Any) -> Any:
    """The rows (rows, in) of each group, which end where offs (groups,) says, by its matrix (in, out)."""
    ends, start, answers = op.Cast(offs, to=ir.DataType.INT64), op.Constant(value_ints=[0]), []
    for group in range(weight.shape[0]):
        end = op.Slice(ends, [group], [group + 1])
        answers.append(op.Gemm(op.Slice(x, start, end, [0]), op.Gather(weight, group, axis=0)))
        start = end
    return op.Concat(*answers, axis=0)


def _squeeze_onnx(x: Any, dim: Any) -> Any:
    """Axes of another size than one stay; torch.export takes one that varies for such."""
    axes = [axis for axis in (dim if isinstance(dim, Sequence) else [dim]) if x.shape and x.shape[axis] == 1]
    return op.Squeeze(x, axes) if axes else op.Identity(x)


def _reciprocal_onnx(x: Any) -> Any:
    """True division: the operator Reciprocal may be an approximation."""
    return op.Div(1.0, x)


TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.qat.dequantize.default: _dequantize_onnx,
    torch.ops.qat.quantize_dequantize.default: _quantize_dequantize_onnx,
    torch.ops.qat.rows.default: _rows_onnx,
    torch.ops.qat.unpack.default: _unpack_onnx,
    torch.ops.aten.linear.default: _linear_onnx,
    torch.ops.aten.matmul.default: _matmul_onnx,
    torch.ops.aten.scaled_dot_product_attention.default: attention_onnx,
    torch.ops.aten.mm.default: _matmul_onnx,
    # A partial has no signature, so torch takes it unasked: torch 2.8 cannot compare one with sizes that vary.
    torch.ops.aten.view.default: partial(_view_onnx),
    torch.ops.aten.reshape.default: partial(_view_onnx),
    torch.ops.aten.flatten.using_ints: _flatten_onnx,
    torch.ops.aten.squeeze.dim: _squeeze_onnx,
    torch.ops.aten.squeeze.dims: _squeeze_onnx,
    torch.ops.aten.reciprocal.default: _reciprocal_onnx,
    torch.ops.qat.recurrence.default: recurrence_onnx,
}


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Ours, and those of operators that other libraries have registered by now."""
    experts = getattr(torch.ops.transformers, "grouped_mm_fallback", None)
    return TRANSLATIONS | ({experts.default: _grouped_mm_onnx} if experts else {})
