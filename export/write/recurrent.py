"""nn.LSTM and nn.GRU as the ONNX operators of the same name.

torch.export takes the length of a sequence for a constant when it traces them, so while exporting a marker operator
stands for the whole layer.

    gates in torch      LSTM i f g o     GRU r z n
    gates in ONNX       LSTM i o f c     GRU z r h

The file keeps the weights as torch does, one initializer each under the module's own name; Split and Concat put the
gates in ONNX's order behind DequantizeLinear.
"""

from collections.abc import Sequence
from typing import Any

import torch
from onnxscript import opset21
from torch import Tensor, nn

from qat_core.sequence import QuantGRU, QuantLSTM

op: Any = opset21
LSTM_GATES = (0, 3, 1, 2)
GRU_GATES = (1, 0, 2)


def recurrence(layer: QuantLSTM | QuantGRU, input: Tensor, hx: Any = None) -> Any:
    """The forward of a layer while exporting: batches of sequences, with or without a first state."""
    if not isinstance(input, Tensor) or input.dim() != 3:
        got = f"{input.dim()} dimensions" if isinstance(input, Tensor) else type(input).__name__
        raise ValueError(
            f"{type(layer).__name__} is given {got}; in a file it takes batches of padded sequences, of 3 dimensions"
        )
    quantizers = {name: quantizer for name, _, quantizer in layer.quantized_weights()}
    params = [
        quantizers[name](weight) if name in quantizers else weight
        for name, weight in zip(layer._flat_weights_names, layer._flat_weights, strict=True)
    ]
    states = [] if hx is None else [hx] if isinstance(hx, Tensor) else list(hx)
    y, *last = torch.ops.qat.recurrence(
        input, states, params, layer.mode, bool(layer.bias), layer.num_layers, layer.bidirectional, layer.batch_first
    )
    return y, tuple(last) if isinstance(layer, nn.LSTM) else last[0]


torch.library.define(
    "qat::recurrence",
    "(Tensor x, Tensor[] states, Tensor[] params, str mode, bool has_biases, int num_layers, bool bidirectional, "
    "bool batch_first) -> (Tensor, Tensor, Tensor)",
)


@torch.library.register_fake("qat::recurrence")  # type: ignore[untyped-decorator]
def _(x: Tensor, states: Any, params: list[Tensor], mode: str, *settings: Any) -> tuple[Tensor, Tensor, Tensor]:
    _, num_layers, bidirectional, batch_first = settings
    directions, hidden = 2 if bidirectional else 1, params[1].shape[1]
    shape = (num_layers * directions, x.shape[0 if batch_first else 1], hidden)
    if x.shape[2] != params[0].shape[1] or any(tuple(state.shape) != shape for state in states):
        raise ValueError(f"{mode} takes {params[0].shape[1]} features and states {shape}, given {x.shape}")
    last = x.new_empty(shape)
    return x.new_empty(*x.shape[:2], directions * hidden), last, torch.empty_like(last)


def recurrence_onnx(
    x: Any,
    states: Sequence[Any],
    params: Sequence[Any],
    mode: str,
    has_biases: bool,
    num_layers: int,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Any, Any, Any]:
    """x (length, batch, in), or (batch, length, in) with batch_first -> all outputs, the last h, the last c."""
    directions = 2 if bidirectional else 1
    settings = {"hidden_size": int(params[1].shape[1]), "direction": "bidirectional" if bidirectional else "forward"}
    first = [_layers(state, num_layers) for state in states] or [[None] * num_layers] * 2
    last: list[tuple[Any, ...]] = []
    x = op.Transpose(x, perm=[1, 0, 2]) if batch_first else x
    for layer in range(num_layers):
        weights = _weights(params, layer, directions, has_biases, LSTM_GATES if mode == "LSTM" else GRU_GATES)
        if mode == "LSTM":
            x, h, c = op.LSTM(x, *weights, None, first[0][layer], first[1][layer], **settings)
        else:  # torch applies the reset gate after the product
            x, h = op.GRU(x, *weights, None, first[0][layer], linear_before_reset=1, **settings)
            c = h
        x = _side_by_side(x, directions)
        last.append((h, c))
    x = op.Transpose(x, perm=[1, 0, 2]) if batch_first else x
    return x, _stack([h for h, _ in last]), _stack([c for _, c in last])


def _weights(
    params: Sequence[Any], layer: int, directions: int, has_biases: bool, gates: Sequence[int]
) -> tuple[Any, Any, Any]:
    """W (directions, gates x hidden, in), R (directions, gates x hidden, hidden) and B of one layer."""
    per_direction = 4 if has_biases else 2
    w, r, b = [], [], []
    for direction in range(directions):
        start = (layer * directions + direction) * per_direction
        reordered = [_reorder(p, gates) for p in params[start : start + per_direction]]
        w.append(op.Unsqueeze(reordered[0], [0]))
        r.append(op.Unsqueeze(reordered[1], [0]))
        if has_biases:
            b.append(op.Unsqueeze(op.Concat(reordered[2], reordered[3], axis=0), [0]))
    return _stack(w), _stack(r), _stack(b) if b else None


def _reorder(parameter: Any, gates: Sequence[int]) -> Any:
    parts = op.Split(parameter, axis=0, num_outputs=len(gates))
    return op.Concat(*(parts[gate] for gate in gates), axis=0)


def _layers(states: Any, num_layers: int) -> Sequence[Any]:
    """(layers x directions, batch, hidden) -> one (directions, batch, hidden) a layer."""
    return [states] if num_layers == 1 else list(op.Split(states, axis=0, num_outputs=num_layers))


def _side_by_side(y: Any, directions: int) -> Any:
    """(length, directions, batch, hidden) -> (length, batch, directions x hidden)."""
    if directions == 1:
        return op.Squeeze(y, [1])
    return op.Reshape(op.Transpose(y, perm=[0, 2, 1, 3]), [0, 0, -1])


def _stack(parts: Sequence[Any]) -> Any:
    return parts[0] if len(parts) == 1 else op.Concat(*parts, axis=0)
