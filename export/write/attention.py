"""Scaled dot-product attention in ONNX as torch computes it: a query that may look at nothing answers zeros.

The exporter's own form hides keys behind the lowest finite number, so that such a query answers the mean of all
values, or NaN where the mask is of -inf; and it transposes keys by four operators.
"""

import math
from typing import Any

import numpy as np
import onnx_ir as ir
from onnxscript import opset21

op: Any = opset21
LOWEST = float(np.finfo(np.float32).min)  # with -inf such a query would answer NaN


def attention_onnx(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """softmax(query key^T scale + mask) value, of (..., L or S, size) each; evaluation drops nothing out."""
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    factor = math.sqrt(abs(scale))  # for both sides, as torch does, lest products overflow
    *leading, sources, size = range(len(key.shape))
    if enable_gqa:
        key, value = (_repeated(x, query.shape[-3]) for x in (key, value))
    columns = op.Mul(op.Transpose(key, perm=[*leading, size, sources]), factor)
    scores = op.MatMul(op.Mul(query, math.copysign(factor, scale)), columns)  # (..., L, S)
    if is_causal:
        rows, columns = (op.Range(0, op.Squeeze(op.Shape(x, start=-2, end=-1)), 1) for x in (query, key))
        scores = op.Where(op.LessOrEqual(columns, op.Unsqueeze(rows, [1])), scores, -math.inf)
    if attn_mask is None:
        return op.MatMul(op.Softmax(scores, axis=-1), value)
    is_bool = attn_mask.dtype == ir.DataType.BOOL
    added = op.Where(attn_mask, 0.0, LOWEST) if is_bool else attn_mask
    looks = op.Greater(op.ReduceMax(added, [-1], keepdims=1), LOWEST if is_bool else -math.inf)  # (..., L, 1)
    y = op.MatMul(op.Softmax(op.Add(scores, added), axis=-1), value)
    return op.Mul(y, op.Cast(looks, to=ir.DataType.FLOAT)) if is_bool else op.Where(looks, y, 0.0)


def _repeated(x: Any, heads: int) -> Any:
    """(N, groups, S, size) -> (N, heads, S, size): each as often as there are heads in a group."""
    groups, size = x.shape[1], x.shape[-1]
    if groups == heads:
        return x
    return op.Reshape(op.Expand(op.Unsqueeze(x, [2]), [1, 1, heads // groups, 1, 1]), [0, heads, -1, size])
