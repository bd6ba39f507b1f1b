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
    """softmax(query key^T scale + mask) value, of (N, heads, L or S, size) each; evaluation drops nothing out."""
    heads, size = query.shape[1], query.shape[-1]
    if enable_gqa:
        key, value = (_repeated(x, heads) for x in (key, value))
    factor = math.sqrt(
        1 / math.sqrt(size) if scale is None else scale
    )  # for both, as torch does, lest products overflow
    scores = op.MatMul(op.Mul(query, factor), op.Mul(op.Transpose(key, perm=[0, 1, 3, 2]), factor))  # (N, heads, L, S)
    if is_causal:
        ends = [op.Range(0, op.Squeeze(op.Shape(x, start=2, end=3)), 1) for x in (query, key)]
        scores = op.Where(op.LessOrEqual(ends[1], op.Unsqueeze(ends[0], [1])), scores, -math.inf)
    if attn_mask is None:
        return op.MatMul(op.Softmax(scores, axis=-1), value)
    is_bool = attn_mask.dtype == ir.DataType.BOOL
    added = op.Where(attn_mask, 0.0, LOWEST) if is_bool else attn_mask
    looks = op.Greater(op.ReduceMax(added, [-1], keepdims=1), LOWEST if is_bool else -math.inf)  # (.., L, 1)
    y = op.MatMul(op.Softmax(op.Add(scores, added), axis=-1), value)
    return op.Mul(y, op.Cast(looks, to=ir.DataType.FLOAT)) if is_bool else op.Where(looks, y, 0.0)


def _repeated(x: Any, heads: int) -> Any:
    """(N, groups, S, size) -> (N, heads, S, size): each as often as there are heads in a group."""
    groups, size = x.shape[1], x.shape[-1]
    if groups == heads:
        return x
    return op.Reshape(op.Expand(op.Unsqueeze(x, [2]), [1, 1, heads // groups, 1, 1]), [0, heads, -1, size])
