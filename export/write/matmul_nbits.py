"""The flavour that onnxruntime runs fast: Linear layers as com.microsoft::MatMulNBits.

DequantizeLinear in front of a Gemm makes a small file and a slow one, since every call makes float weights anew.
MatMulNBits multiplies by the codes as they lie in memory. On a CPU it has two accuracy levels:

    1   float32 activations: what a network with quantized weights computes, faster than FP32
    4   each block of a row of activations is rounded to 8 bits first: the quickest. A network trained with dynamic
        per-group 8-bit activations rounds exactly so, and answers the same; any other one would not

Which kernels are quick was measured with onnxruntime 1.32: level 1 for 4 bits only, level 4 for 4 and 8 bits, and for
2 bits in blocks of 32 to 128. Narrower codes are stored in 4 bits where that is what it takes.
"""

import math
from dataclasses import asdict, dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from qat_core import FakeQuantize, QuantSpec
from qat_core.affine import to_groups
from qat_core.layers import QuantLayer, QuantLinear

DOMAIN, OP_TYPE = "com.microsoft", "MatMulNBits"
BLOCK_SIZES = (16, 32, 64, 128, 256)
PREFERRED_BLOCK_SIZE = 128  # where the scales leave a choice: few of them, and as quick as any
TWO_BIT_BLOCK_SIZES = (32, 64, 128)


@dataclass(frozen=True)
class MatMulNBits:
    """How the operator runs one layer: its attributes.

    Attributes:
        K, N: inputs and outputs of the layer.
        bits: of a code in the file, 2, 4 or 8: as many as the spec says or more.
        block_size: neighbours in a row that share a scale in the file.
        accuracy_level: 1, float32 activations, or 4, 8-bit ones.
    """

    K: int
    N: int
    bits: int
    block_size: int
    accuracy_level: int

    def codes(self, codes: Tensor, spec: QuantSpec) -> Tensor:
        """The codes of a spec as the file holds them: (code + shift) * `multiplier`."""
        return (codes.int() * self.multiplier(spec)).add_(int(spec.shift * self.multiplier(spec)))

    def multiplier(self, spec: QuantSpec) -> int:
        """The power of two that codes are multiplied by and scales divided by, so that the products stay the same.

        2 takes the half-shifted grid to whole numbers. At level 4 the kernel multiplies by unsigned codes and takes
        2^(bits - 1) times the sum of each block away again, in float32: beside narrow codes that is much. Codes of
        +-1 in 4 bits were 2e-6 of a row's range off; those that fill their bits are 3e-7 to 7e-7 off, as far as
        float32 sums are from the true ones.
        """
        if self.accuracy_level < 4:
            return 2 if spec.half_shift else 1
        return 1 << (self.bits - math.ceil(spec.bits))

    def as_settings(self) -> dict[str, object]:
        """For the receipt, which knows the sizes of the layer."""
        settings = {name: value for name, value in asdict(self).items() if name not in ("K", "N")}
        return {"kernel": OP_TYPE, **settings}


def kernel_of(layer: QuantLayer) -> MatMulNBits | str:
    """How MatMulNBits runs a layer of a converted model, or why it does not."""
    if not isinstance(layer, QuantLinear):
        return f"{type(layer).__name__.removeprefix('Quant')} is not a Linear"
    activation = None if layer.input_quantizer is None else layer.input_quantizer.spec
    if activation is not None and not activation.dynamic:
        return "its activations have one static scale: integer kernels with storage='packed' are quicker"
    if activation is not None and activation.power_of_two:
        return "the kernel rounds activations to scales of its own, not to powers of two"
    spec = layer.weight_quantizer.spec
    sizes = _block_sizes(layer.in_features, spec, activation)
    if not sizes:
        groups = [f"groups of {s.group_size}" for s in (spec, activation) if s and s.granularity == "per_group"]
        rows = ["whole rows"] if activation is not None and activation.granularity != "per_group" else []
        return f"no block of {', '.join(map(str, BLOCK_SIZES))} inputs fits its {' and '.join(groups + rows)}"
    size = max((size for size in sizes if size <= PREFERRED_BLOCK_SIZE), default=min(sizes))
    k, n, bits = layer.in_features, layer.out_features, spec.storage_bits
    if spec.half_shift:
        bits = 4 if spec.bits < 4 else 2 * bits
    if activation is None:
        if bits > 4:
            return "float activations have a quick kernel for 4-bit codes only"
        return MatMulNBits(k, n, 4, size, accuracy_level=1)
    if bits > 8:
        return "half-shifted codes of 8 bits do not fit into 8 bits without their shift"
    bits = 4 if bits == 2 and size not in TWO_BIT_BLOCK_SIZES else bits
    return MatMulNBits(k, n, bits, size, accuracy_level=4)


def _block_sizes(columns: int, weight: QuantSpec, activation: QuantSpec | None) -> list[int]:
    """The block sizes at which no block crosses from one scale into another, the smallest first."""
    sizes = list(BLOCK_SIZES)
    if weight.granularity == "per_group" and weight.group_size < columns:
        sizes = [size for size in sizes if weight.group_size % size == 0]
    if activation is None:
        return [size for size in sizes if size < 2 * columns] or sizes[:1]
    if activation.granularity == "per_group" and activation.group_size < columns:
        return [size for size in sizes if size == activation.group_size]
    return [size for size in sizes if size >= columns][:1]


def pack_weight(codes: Tensor, bits: int, block_size: int) -> Tensor:
    """Unsigned codes (out, in) -> bytes (out, blocks, block_size * bits / 8), a short last block filled up.

    Source: onnxruntime, docs/ContribOperators.md, "com.microsoft.MatMulNBits".
    """
    padded = F.pad(codes, (0, -codes.shape[1] % block_size))
    return pack_rows(padded, bits).reshape(len(codes), padded.shape[1] // block_size, -1)


def pack_rows(codes: Tensor, bits: int) -> Tensor:
    """Unsigned codes (rows, columns) -> bytes, the lowest bits first, each row filled up to whole bytes."""
    per_byte = 8 // bits
    parts = F.pad(codes, (0, -codes.shape[1] % per_byte)).reshape(len(codes), -1, per_byte)
    return (parts << torch.arange(0, 8, bits)).sum(-1).to(torch.uint8)


def in_blocks(kernel: MatMulNBits, quantizer: FakeQuantize, weight: Tensor) -> dict[str, Tensor]:
    """The codes of a converted weight (out, in), their scales and zero points, as MatMulNBits reads them."""
    spec, bits, size = quantizer.spec, kernel.bits, kernel.block_size
    multiplier = kernel.multiplier(spec)
    blocks = -(-kernel.K // size)

    def by_block(x: Tensor) -> Tensor:
        """(), (out, 1) or (out, groups, 1) -> (out, blocks)."""
        x = x.reshape(kernel.N, -1) if x.dim() else x.reshape(1, 1)
        repeats = -(-blocks // x.shape[1]) if x.shape[1] == 1 else spec.group_size // size
        return x.repeat_interleave(repeats, 1)[:, :blocks].expand(kernel.N, blocks).contiguous()

    scale, zero_point = quantizer.source.qparams(to_groups(weight, spec))
    codes = kernel.codes(quantizer.codes(weight), spec)
    parts = {"scale": by_block(scale / multiplier)}
    if zero_point is None:
        codes = codes + 2 ** (bits - 1)
    else:
        parts = {"zero_point": pack_rows(by_block(zero_point * multiplier).int(), bits), **parts}
    return {**parts, "codes": pack_weight(codes, bits, size)}
