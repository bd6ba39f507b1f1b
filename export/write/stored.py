"""A tensor and a layer as a file holds them; `storage.py` decides, and all who write the file ask."""

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir
import torch
from torch import Tensor

from export.write.matmul_nbits import MatMulNBits
from qat_core import QuantSpec
from qat_core.layers import QuantLayer

SUFFIXES = {"codes": "", "bytes": "", "scale": "_scale", "unit": "_unit", "zero_point": "_zero_point"}


@dataclass(frozen=True, eq=False)
class StoredTensor:
    """One tensor as the file holds it.

    Attributes:
        name: of its initializer; those beside it are named after it.
        spec: of its quantizer.
        parts: role -> tensor: "codes" in their shape in the file (an activation has none) or "bytes" of narrow ones,
            "scale", "zero_point" and, on the half-shifted grid, "unit", the scale of DequantizeLinear there.
        dtype: of codes and zero point where they are read.
        shape: of what it stands for.
        axis, block_size: of DequantizeLinear.
        kernel: how MatMulNBits reads it; None for DequantizeLinear.
        row_bits: of a code, where rows are looked up before they become numbers; 0 elsewhere.
        packed_bits: of a code, where a session unpacks bytes of several as it loads; 0 elsewhere.
    """

    name: str
    spec: QuantSpec
    parts: dict[str, Tensor]
    dtype: ir.DataType
    shape: torch.Size
    axis: int = 0
    block_size: int = 0
    kernel: MatMulNBits | None = None
    row_bits: int = 0
    packed_bits: int = 0

    def name_of(self, role: str) -> str:
        """The initializer that holds a part."""
        return self.name + SUFFIXES[role]


@dataclass(frozen=True, eq=False)
class StoredLayer:
    """One layer as the file holds it.

    Attributes:
        name: in the model; empty for the model itself.
        layer: of the model, whose scales are constants.
        weights: in the order of `layer.quantized_weights()`.
        bias, activation: None where they are no codes.
        kernel: how MatMulNBits runs it.
        reason: why it does not, where the flavour asked for it.
    """

    name: str
    layer: QuantLayer
    weights: tuple[StoredTensor, ...]
    bias: StoredTensor | None
    activation: StoredTensor | None
    kernel: MatMulNBits | None
    reason: str

    def on_grid(self) -> Iterator[tuple[StoredTensor, Tensor]]:
        """What is stored as codes, and the numbers that the forward pass computes with."""
        if self.weights:
            stored = (*self.weights, *([] if self.bias is None else [self.bias]))
            yield from zip(stored, (numbers for _, numbers in self.layer.on_grid()), strict=True)
