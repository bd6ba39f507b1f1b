"""Attention and recurrence: layers that keep several weights."""

import math
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qat_core.fake_quant import FakeQuantize
from qat_core.layers import QuantLayer
from qat_core.processes import in_call, on_grid_in_calls
from qat_core.spec import QATConfig


class QuantMultiheadAttention(QuantLayer, nn.MultiheadAttention):
    """`nn.MultiheadAttention` for one embedding size, with quantized projections.

    Queries, keys and values go through the packed `in_proj_weight` (3 x embed_dim, embed_dim); `out_proj` is a
    layer of its own. The products of attention itself stay in float. Arguments and results as in FP32.
    """

    in_proj_weight = on_grid_in_calls("in_proj_weight")

    def weight_names(self) -> tuple[str, ...]:
        return ("in_proj_weight",)

    @property
    def weight(self) -> Tensor:
        return self.latent("in_proj_weight")

    @property
    def bias(self) -> Tensor | None:  # type: ignore[override]
        return self.in_proj_bias

    @property
    def weight_quantizer(self) -> FakeQuantize:  # type: ignore[override]
        return cast(FakeQuantize, self.in_proj_weight_quantizer)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        if is_causal and attn_mask is None:  # a hint about the mask, which nn.MultiheadAttention refuses alone as well
            raise ValueError("is_causal=True without attn_mask; expected the causal mask, of which it is a hint")
        batched = query.dim() == 3
        q, k, v = (self._heads(part, batched) for part in self._project(query, key, value))  # (N, heads, L or S, d)
        mask = self._mask(q, k, key_padding_mask, attn_mask)
        dropout = self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            scores = q @ k.transpose(-2, -1) / math.sqrt(self.head_dim)  # (N, heads, L, S)
            weights = torch.softmax(scores if mask is None else scores + mask, dim=-1)
            y = F.dropout(weights, dropout) @ v
        else:
            y = F.scaled_dot_product_attention(q, k, v, mask, dropout)
        y = self.out_proj(y.transpose(1, 2).flatten(2))  # (N, L, embed_dim)
        if weights is not None and average_attn_weights:
            weights = weights.mean(1)
        if not batched:
            return y.squeeze(0), None if weights is None else weights.squeeze(0)
        return y if self.batch_first else y.transpose(0, 1), weights

    def _project(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, ...]:
        x, weight, bias = self.quantized(query)
        if query is key and key is value:
            return F.linear(x, weight, bias).chunk(3, dim=-1)
        biases = (None, None, None) if bias is None else bias.chunk(3)
        others = (key, value) if self.input_quantizer is None else map(self.input_quantizer, (key, value))
        return tuple(map(F.linear, (x, *others), weight.chunk(3), biases))

    def _heads(self, x: Tensor, batched: bool) -> Tensor:
        """(N, L, embed_dim), (L, N, embed_dim) or (L, embed_dim) -> (N, heads, L, head_dim)."""
        if not batched:
            x = x.unsqueeze(0)
        elif not self.batch_first:
            x = x.transpose(0, 1)
        return x.reshape(*x.shape[:2], self.num_heads, self.head_dim).transpose(1, 2)

    def _mask(self, q: Tensor, k: Tensor, key_padding_mask: Tensor | None, attn_mask: Tensor | None) -> Tensor | None:
        """What is added to the scores: -inf where a mask says True, a float mask as it is."""
        masks = []
        n, heads, length, sources = *q.shape[:3], k.shape[2]
        if attn_mask is not None:
            each = (n * heads,) if attn_mask.dim() == 3 else ()
            _expect("attn_mask", attn_mask, (*each, length, sources))
            masks.append(attn_mask.reshape(n, heads, length, sources) if each else attn_mask)
        if key_padding_mask is not None:
            if key_padding_mask.dim() == 1:  # of one sequence
                key_padding_mask = key_padding_mask.unsqueeze(0)
            _expect("key_padding_mask", key_padding_mask, (n, sources))
            masks.append(key_padding_mask[:, None, None])
        added = [
            torch.zeros_like(mask, dtype=q.dtype).masked_fill(mask, -math.inf) if mask.dtype == torch.bool else mask
            for mask in masks
        ]
        return sum(added[1:], added[0]) if added else None


def _expect(name: str, mask: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(mask.shape) != shape:
        raise ValueError(f"{name} has shape {tuple(mask.shape)}; expected {shape}")


class _QuantRecurrent(QuantLayer, nn.RNNBase):  # type: ignore[misc]
    """Every input-to-hidden and hidden-to-hidden weight is quantized, (gates x hidden, in); activations stay in float,
    since the recurrent kernel gives no way to round between its steps."""

    @classmethod
    def input_spec(cls, config: QATConfig) -> None:
        """Always None."""

    reads_itself = False

    def __getattr__(self, name: str) -> Any:
        """Others get the weights on their grids, as those of other layers; torch's own forward passes compares them."""
        value = super().__getattr__(name)
        if name in self._parameters and name.startswith("weight") and not self.reads_itself and in_call():
            return self.get_submodule(f"{name}_quantizer")(value)
        return value

    def weight_names(self) -> tuple[str, ...]:
        return tuple(name for name in self._flat_weights_names if name.startswith("weight"))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        self.reads_itself = True
        self._update_flat_weights()  # else torch would do so below and take the latent weights
        latent = self._flat_weights
        on_grid = {name: quantizer(weight) for name, weight, quantizer in self.quantized_weights()}
        self._flat_weights = [on_grid.get(n, w) for n, w in zip(self._flat_weights_names, latent, strict=True)]
        try:
            return super().forward(*args, **kwargs)
        finally:
            self._flat_weights, self.reads_itself = latent, False


_QuantRecurrent.forward.__wrapped__ = nn.LSTM.forward  # type: ignore[attr-defined]  # whose arguments name a file's inputs


class QuantLSTM(_QuantRecurrent, nn.LSTM):  # type: ignore[misc]
    """`nn.LSTM` with quantized weights: (batch, length, in) -> (batch, length, hidden) with batch_first."""


class QuantGRU(_QuantRecurrent, nn.GRU):  # type: ignore[misc]
    """`nn.GRU` with quantized weights: (batch, length, in) -> (batch, length, hidden) with batch_first."""
