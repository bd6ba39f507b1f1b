"""What stands in for the quantizers while a model is exported, and only then.

A weight quantizer steps aside for a module that holds the integer codes of the forward pass, an activation quantizer
for one that holds its scale; `storage.py` says which. Both call a marker operator, which torch.export carries through
untouched and one line of onnxscript turns into QuantizeLinear and DequantizeLinear. Training never sees a marker.
"""

import inspect
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from export.write.call import replace_forward
from export.write.matmul_nbits import DOMAIN, OP_TYPE
from export.write.recurrent import recurrence
from export.write.stored import StoredLayer, StoredTensor
from export.write.tensors import twin
from qat_core import FakeQuantize
from qat_core.affine import dequantize, dynamic_qparams, from_groups, quantize, to_groups
from qat_core.layers import QuantLayer
from qat_core.sequence import QuantGRU, QuantLSTM
from qat_core.tables import QuantEmbedding, QuantEmbeddingBag

HINTS = ("is_causal", "tgt_is_causal")  # beside a mask that says so


class _StandIn(nn.Module):
    """A tensor as the file holds it, each part a buffer."""

    each_row = False  # of a table: all of it is unpacked
    codes: Tensor
    bytes: Tensor
    scale: Tensor
    unit: Tensor
    zero_point: Tensor

    def __init__(self, stored: StoredTensor) -> None:
        super().__init__()
        self.stored = stored
        for role, tensor in stored.parts.items():
            self.register_buffer(role, tensor)


class Numbers(nn.Module):
    """A weight that stays in float, on its grid as it is."""

    each_row = False

    def forward(self, x: Tensor) -> Tensor:
        return x


class Codes(_StandIn):
    """A tensor that never changes, as integer codes: DequantizeLinear."""

    def forward(self, _: Tensor) -> Tensor:
        stored, half_shift = self.stored, self.stored.spec.half_shift
        scale = self.unit if half_shift else self.scale
        zero_point = self._buffers.get("zero_point")
        codes = self._buffers.get("codes")
        if codes is None:
            is_signed = stored.dtype == ir.DataType.INT8
            codes = torch.ops.qat.unpack(self.bytes, stored.packed_bits, is_signed, stored.shape)
        y: Tensor = torch.ops.qat.dequantize(codes, scale, zero_point, stored.axis, stored.block_size)
        if half_shift:
            y = from_groups((y + stored.spec.shift) * self.scale, stored.shape)
        return y if y.shape == stored.shape else y.reshape(stored.shape)


class Rows(_StandIn):
    """The codes of a table, of which only the rows that are looked up become numbers."""

    def forward(self, indices: Tensor) -> Tensor:
        """(...) -> (..., columns); for the table itself, which something else than its layer reads, all rows of it."""
        stored, spec = self.stored, self.stored.spec
        if indices.is_floating_point():
            indices = torch.arange(stored.shape[0])
        zero_point = self._buffers.get("zero_point")
        y: Tensor = torch.ops.qat.rows(
            indices, self.codes, self.scale, zero_point, stored.row_bits, spec.symmetric, spec.shift, stored.shape[1]
        )
        return y


class Activation(_StandIn):
    """A static activation quantizer: QuantizeLinear, DequantizeLinear."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = torch.ops.qat.quantize_dequantize(x, self.scale, self.zero_point)
        return y


class Blocks(_StandIn):
    """The codes of a Linear's weight, and the product with them: MatMulNBits."""

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """x times the weight: what torch.export carries through as it is."""
        kernel = self.stored.kernel
        assert kernel is not None
        if x.shape[-1] != kernel.K:
            raise ValueError(f"{OP_TYPE} takes rows of {kernel.K}, given {x.shape}")
        return torch.onnx.ops.symbolic(
            f"{DOMAIN}::{OP_TYPE}",
            [x, self.codes, self.scale, self._buffers.get("zero_point"), *([] if bias is None else [None, bias])],
            asdict(kernel),
            dtype=x.dtype,
            shape=(*x.shape[:-1], kernel.N),
            version=1,
        )


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


def with_stand_ins(
    converted: nn.Module, layers: Sequence[StoredLayer]
) -> tuple[nn.Module, dict[str, tuple[StoredTensor, str]]]:
    """A copy of a converted model whose quantizers are stand-ins.

    Returns:
        The copy, and each of its buffers, by every name it has: what it is of, and its role there.
    """
    exporting = twin(converted)
    made: dict[StoredTensor, nn.Module] = {}
    in_float: dict[Tensor, nn.Parameter] = {}
    for stored in layers:
        layer = exporting.get_submodule(stored.name)
        assert isinstance(layer, QuantLayer)
        if not stored.weights:
            layer.put_on_grid(in_float)
        for index, (part, _, _) in enumerate(layer.quantized_weights()):
            stand_in: nn.Module = Numbers()
            if stored.weights:
                weight = stored.weights[index]
                kind = Rows if weight.row_bits else Blocks if weight.kernel else Codes
                stand_in = made.setdefault(weight, kind(weight))
            layer._modules[f"{part}_quantizer"] = stand_in
        if stored.kernel:
            layer._modules["input_quantizer"] = None
            replace_forward(layer, partial(_product, layer))
            layer.__dict__["weight"] = layer.weight  # others may read it
            continue
        if stored.bias is not None:
            layer.add_module("bias_quantizer", Codes(stored.bias))
        if stored.activation is not None:
            layer._modules["input_quantizer"] = Activation(stored.activation)
        elif layer.input_quantizer is not None:
            layer._modules["input_quantizer"] = ActivationInFloat(layer.input_quantizer)
        layer.__dict__["quantized"] = partial(_quantized, layer)
        if isinstance(layer, QuantEmbedding) and any(weight.row_bits for weight in stored.weights):
            replace_forward(layer, layer.weight_quantizer.forward)
        elif isinstance(layer, QuantEmbeddingBag):
            replace_forward(layer, partial(_bag, layer))
        elif isinstance(layer, QuantLSTM | QuantGRU):
            replace_forward(layer, partial(recurrence, layer))
    for module in exporting.modules():
        if isinstance(module, nn.TransformerEncoder | nn.TransformerDecoder):
            replace_forward(module, partial(_unhinted, module))
    buffers = {
        f"{name}.{role}": (module.stored, role)
        for name, module in exporting.named_modules(remove_duplicate=False)
        if isinstance(module, _StandIn)
        for role in module.stored.parts
    }
    return exporting, buffers


def _unhinted(stack: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """The forward of a stack of torch's without a look at the numbers of its mask, for a hint that it is causal."""
    bound = inspect.signature(type(stack).forward).bind(stack, *args, **kwargs)
    bound.apply_defaults()
    unsaid = {name: False for name in HINTS if name in bound.arguments and bound.arguments[name] is None}
    bound.arguments.update(unsaid)
    return type(stack).forward(*bound.args, **bound.kwargs)


def _product(layer: QuantLayer, input: Tensor) -> Tensor:
    """The forward of a QuantLinear that MatMulNBits runs: activations go in as they are, the kernel rounds them."""
    y: Tensor = layer.weight_quantizer(input, layer.bias)
    return y


def _quantized(layer: QuantLayer, x: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """What `QuantLayer.quantized` answers while exporting: everything from the file's own codes."""
    if layer.input_quantizer is not None:
        x = layer.input_quantizer(x)
    bias = layer.bias
    if "bias_quantizer" in layer._modules:
        bias = layer.get_submodule("bias_quantizer")(bias)
    return x, layer.weight_quantizer(layer.latent("weight")), bias


def _bag(
    layer: QuantEmbeddingBag, input: Tensor, offsets: Tensor | None = None, per_sample_weights: Tensor | None = None
) -> Tensor:
    """`nn.EmbeddingBag` on bags of one size, (bags, size), as lookup and reduction; others on the rows looked up.

    The exporter's own form is a loop over the bags.
    """
    quantizer = layer.weight_quantizer
    by_row = isinstance(quantizer, Rows)
    if input.dim() != 2 or per_sample_weights is not None or layer.padding_idx is not None:
        if not by_row:
            return QuantEmbeddingBag.forward(layer, input, offsets, per_sample_weights)
        places = torch.arange(input.numel(), device=input.device).reshape(input.shape)
        options = (layer.norm_type, layer.scale_grad_by_freq, layer.mode, layer.sparse)
        rows = quantizer(input.flatten())  # (indices, embedding_dim)
        return F.embedding_bag(places, rows, offsets, None, *options, per_sample_weights, layer.include_last_offset)
    rows = quantizer(input) if by_row else F.embedding(input, quantizer(layer.latent("weight")))
    if layer.mode == "max":
        return rows.amax(1)  # of (bags, size, embedding_dim)
    return rows.sum(1) if layer.mode == "sum" else rows.mean(1)
