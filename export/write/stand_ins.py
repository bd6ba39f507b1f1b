"""What stands in for the quantizers while a model is exported, and only then.

A weight quantizer steps aside for a module that holds the integer codes of the forward pass, an activation quantizer
for one that holds its scale. Both call a marker operator, which torch.export carries through untouched and one line
of onnxscript turns into QuantizeLinear and DequantizeLinear. Training never sees a marker.
"""

import copy
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from export.write.matmul_nbits import QuickKernel, QuickLinear, StoredBlocks
from export.write.recurrent import Recurrence
from qat_core import FakeQuantize, QuantSpec
from qat_core.affine import dequantize, dynamic_qparams, from_groups, quantize, to_groups
from qat_core.layers import QuantEmbeddingBag, QuantLayer, quantized_layers
from qat_core.sequence import QuantGRU, QuantLSTM

BIAS_SPEC = QuantSpec(bits=8)  # signed; its codes are INT32 whatever the width


class StoredCodes(nn.Module):
    """A tensor that never changes, as integer codes.

    On the half-shifted grid a real number is (code + 0.5) * scale, rounded once. DequantizeLinear of scale and an
    Add of half a step would round twice, so there the codes are dequantized with scale 1 and multiplied afterwards.

    Args:
        codes: in the shape of the tensor.
        scale, zero_point: as the quantizer's source answers; zero_point None is written as 0, since without an explicit
            one onnxruntime's integer kernels never appear.
        spec: of the quantizer.
        axis: of the output channels.
    """

    scale: Tensor

    def __init__(self, codes: Tensor, scale: Tensor, zero_point: Tensor | None, spec: QuantSpec, axis: int) -> None:
        super().__init__()
        self.spec, self.shape, self.axis, self.block_size = spec, codes.shape, axis, 0
        zero_point = torch.zeros_like(scale) if zero_point is None else zero_point
        if spec.half_shift:
            codes = to_groups(codes, spec)
            self.register_buffer("scale", scale)
            scale, zero_point = torch.ones(()), torch.zeros(())
        elif spec.granularity == "per_group":
            scale, zero_point = scale.squeeze(-1), zero_point.squeeze(-1)  # (rows, groups)
            codes, self.axis, self.block_size = codes.flatten(1), 1, spec.group_size
        if not self.block_size and scale.dim():
            scale, zero_point = scale.flatten(), zero_point.flatten()
        self.register_buffer("codes", codes)
        self.register_buffer("unit" if spec.half_shift else "scale", scale)
        self.register_buffer("zero_point", zero_point.to(codes.dtype))

    @classmethod
    def of_weight(cls, quantizer: FakeQuantize, weight: Tensor, axis: int, origin: int) -> "StoredCodes":
        """The codes that the forward pass computes from a weight; an origin other than 0 makes them unsigned."""
        spec = quantizer.spec
        scale, zero_point = quantizer.source.qparams(to_groups(weight, spec))
        codes = quantizer.codes(weight)
        if origin:
            codes, zero_point = (codes.short() + origin).to(torch.uint8), torch.full_like(scale, origin)
            spec = replace(spec, symmetric=False)
        return cls(codes, scale, zero_point, spec, axis)

    @classmethod
    def of_bias(cls, layer: QuantLayer) -> "StoredCodes":
        """The INT32 codes of a bias in the unit of its layer's accumulator."""
        assert layer.bias is not None
        codes, unit = bias_codes(layer)
        return cls(codes, unit, None, BIAS_SPEC, 0)

    def forward(self, _: Tensor) -> Tensor:
        scale = self.unit if self.spec.half_shift else self.scale
        y: Tensor = torch.ops.qat.dequantize(self.codes, scale, self.zero_point, self.axis, self.block_size)
        if self.spec.half_shift:
            y = from_groups((y + self.spec.shift) * self.scale, self.shape)
        return y if y.shape == self.shape else y.reshape(self.shape)


class StoredActivation(nn.Module):
    """A static activation quantizer: QuantizeLinear, DequantizeLinear."""

    def __init__(self, quantizer: FakeQuantize) -> None:
        super().__init__()
        self.spec = quantizer.spec
        scale, zero_point = quantizer.source.qparams(torch.empty(0))
        zero_point = torch.zeros_like(scale) if zero_point is None else zero_point
        self.register_buffer("scale", scale)
        self.register_buffer("zero_point", zero_point.to(torch.int8 if self.spec.symmetric else torch.uint8))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = torch.ops.qat.quantize_dequantize(x, self.scale, self.zero_point)
        return y


class ActivationInFloat(nn.Module):
    """What QuantizeLinear has no form for, in operators that round as it does: dynamic scales, half-shifted grids."""

    def __init__(self, quantizer: FakeQuantize) -> None:
        super().__init__()
        self.spec, self.source = quantizer.spec, quantizer.source

    def forward(self, x: Tensor) -> Tensor:
        spec = self.spec
        if not spec.dynamic:
            scale, _ = self.source.qparams(x)
            return dequantize(quantize(x, scale, None, spec.quant_min, spec.quant_max, spec.shift), scale, None, 0.5)
        rows = x.reshape(-1, x.shape[-1])
        groups = to_groups(rows, spec)  # (rows, groups, group_size) or (rows, features)
        scale, factor = dynamic_qparams(groups, spec)
        y: Tensor = (groups * factor).round() * scale
        return y.flatten(1)[:, : x.shape[-1]].reshape(x.shape)


def with_markers(
    converted: nn.Module, quick: Mapping[str, QuickKernel]
) -> tuple[nn.Module, dict[str, QuantSpec], dict[str, str]]:
    """A copy whose quantizers are stand-ins, and whose layers named in `quick` are MatMulNBits.

    Returns:
        The copy; the buffer of codes or a zero point -> its spec; every other name of a tied buffer -> its first one.
    """
    exporting = copy.deepcopy(converted)
    origins = code_origins(exporting)
    stand_ins: dict[FakeQuantize, nn.Module] = {}
    for layer_name, layer in list(quantized_layers(exporting)):
        if layer_name in quick:
            quantizer = layer.weight_quantizer
            if quantizer not in stand_ins:
                stand_ins[quantizer] = StoredBlocks(quantizer, layer.weight, quick[layer_name])
            layer._modules.update(weight_quantizer=stand_ins[quantizer], input_quantizer=None)
            layer.__dict__ |= {"forward": QuickLinear(layer), "weight": layer.weight}  # for whoever reads it besides
            continue
        if layer.has_integer_accumulator() and layer.bias is not None:
            layer.add_module("bias_quantizer", StoredCodes.of_bias(layer))
        for name, weight, quantizer in layer.quantized_weights():
            if quantizer not in stand_ins:
                stand_ins[quantizer] = StoredCodes.of_weight(quantizer, weight, layer.axis, origins[quantizer])
            layer._modules[f"{name}_quantizer"] = stand_ins[quantizer]
        activation = layer.input_quantizer
        if activation is not None:
            in_float = activation.spec.dynamic or activation.spec.half_shift
            layer._modules["input_quantizer"] = (ActivationInFloat if in_float else StoredActivation)(activation)
        layer.__dict__["quantized"] = _Stored(layer)
        if isinstance(layer, QuantEmbeddingBag):
            layer.__dict__["forward"] = _Bag(layer)
        elif isinstance(layer, QuantLSTM | QuantGRU):
            layer.__dict__["forward"] = Recurrence(layer)
    specs, aliases = {}, {}
    first: dict[nn.Module, str] = {}
    for name, module in exporting.named_modules(remove_duplicate=False):
        if isinstance(module, StoredCodes | StoredActivation | StoredBlocks):
            owner = first.setdefault(module, name)
            for part, _ in module.named_buffers():
                aliases[f"{name}.{part}"] = f"{owner}.{part}"
                if not isinstance(module, StoredBlocks):
                    specs[f"{name}.{part}"] = module.spec
    return exporting, specs, aliases


def code_origins(converted: nn.Module) -> dict[FakeQuantize, int]:
    """What each weight quantizer's codes are counted from in the file: 0, or 128 where eight bits are written unsigned.

    Processors without VNNI multiply bytes in pairs and cut each sum off at 16 bits: two times 255 * 127 does not fit,
    and an answer is wrong by percents. onnxruntime does so where an integer kernel gets INT8 weights, and takes
    instructions that do not overflow where it gets UINT8. Narrower codes are too small to matter: 2 * 255 * 8 fits.
    """
    origins: dict[FakeQuantize, int] = {}
    for _, layer in quantized_layers(converted):
        for _, _, quantizer in layer.quantized_weights():
            wide = layer.has_integer_accumulator() and quantizer.spec.bits == 8 and quantizer.spec.symmetric
            origins[quantizer] = 128 if wide else origins.get(quantizer, 0)
    return origins


def bias_codes(layer: QuantLayer) -> tuple[Tensor, Tensor]:
    """The INT32 codes of a converted layer's bias and their unit, input scale x weight scale: () or (out,)."""
    assert layer.bias is not None
    assert layer.input_quantizer is not None
    input_scale, _ = layer.input_quantizer.source.qparams(torch.empty(0))
    weight_scale, _ = layer.weight_quantizer.source.qparams(layer.weight)
    unit = input_scale * weight_scale
    if unit.dim():
        unit = unit.flatten().repeat(layer.bias.numel() // unit.numel())  # the groups of a ConvTranspose share scales
    limit = 2**31 - 128
    return quantize(layer.bias, unit, None, -limit, limit).to(torch.int32), unit


class _Stored:
    """What `QuantLayer.quantized` answers while exporting: everything from the file's own codes."""

    def __init__(self, layer: QuantLayer) -> None:
        self.layer = layer

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        layer = self.layer
        if layer.input_quantizer is not None:
            x = layer.input_quantizer(x)
        bias = layer.bias
        if "bias_quantizer" in layer._modules:
            bias = layer.get_submodule("bias_quantizer")(bias)
        return x, layer.weight_quantizer(layer.latent("weight")), bias


class _Bag:
    """`nn.EmbeddingBag` on bags of one size, (bags, size), as lookup and reduction; other calls as they are.

    The exporter's own form is a loop over the bags.
    """

    def __init__(self, layer: QuantEmbeddingBag) -> None:
        self.layer = layer

    def __call__(
        self, input: Tensor, offsets: Tensor | None = None, per_sample_weights: Tensor | None = None
    ) -> Tensor:
        layer = self.layer
        if input.dim() != 2 or per_sample_weights is not None or layer.padding_idx is not None:
            return QuantEmbeddingBag.forward(layer, input, offsets, per_sample_weights)
        rows = F.embedding(input, layer.weight_quantizer(layer.latent("weight")))  # (bags, size, embedding_dim)
        if layer.mode == "max":
            return rows.amax(1)
        return rows.sum(1) if layer.mode == "sum" else rows.mean(1)
