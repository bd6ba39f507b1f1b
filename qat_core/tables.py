"""Layers that look rows up in a table of weights, of which a call quantizes those alone."""

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qat_core.layers import QuantLayer


class QuantEmbedding(QuantLayer, nn.Embedding):
    """`nn.Embedding`: whole numbers (...) -> (..., embedding_dim). A channel is a row of the table."""

    @classmethod
    def input_spec(cls, config: object) -> None:
        """Its input is whole numbers already."""

    def forward(self, input: Tensor) -> Tensor:
        weight, quantizer = self.latent("weight"), self.weight_quantizer
        if not quantizer.each_row or input.numel() >= self.num_embeddings:
            table = quantizer(weight)  # (num_embeddings, embedding_dim)
            return F.embedding(input, table, self.padding_idx, scale_grad_by_freq=self.scale_grad_by_freq)
        words = input.flatten()
        rows = quantizer.rows(weight, partial(F.embedding, words, padding_idx=self.padding_idx))
        places = one_place_each(words, self.num_embeddings).reshape(input.shape)
        return F.embedding(places, rows, scale_grad_by_freq=self.scale_grad_by_freq)  # (..., embedding_dim)


class QuantEmbeddingBag(QuantLayer, nn.EmbeddingBag):
    """`nn.EmbeddingBag`: bags of whole numbers -> (bags, embedding_dim)."""

    @classmethod
    def input_spec(cls, config: object) -> None:
        """Its input is whole numbers already."""

    def forward(self, input: Tensor, offsets: Tensor | None = None, per_sample_weights: Tensor | None = None) -> Tensor:
        weight, quantizer = self.latent("weight"), self.weight_quantizer
        if not quantizer.each_row or input.numel() >= self.num_embeddings or self.padding_idx is not None:
            table = quantizer(weight)  # (num_embeddings, embedding_dim)
        else:
            words = input.flatten()
            table = quantizer.rows(weight, partial(F.embedding, words))  # (words, embedding_dim)
            input = one_place_each(words, self.num_embeddings).reshape(input.shape)
        return F.embedding_bag(
            input,
            table,
            offsets,
            None,
            self.norm_type,
            self.scale_grad_by_freq,
            self.mode,
            self.sparse,
            per_sample_weights,
            self.include_last_offset,
            self.padding_idx,
        )


def one_place_each(words: Tensor, count: int) -> Tensor:
    """Of each word a place where it stands, the same for equal ones: (words,) of numbers below `count` -> (words,).

    So that gradients of a word add up before they reach its row and its scale, in the order of a whole table.
    """
    places = torch.arange(words.numel(), device=words.device)
    return words.new_zeros(count, dtype=torch.long).scatter(0, words.long(), places)[words]
