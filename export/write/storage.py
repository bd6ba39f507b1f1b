"""How a file holds each layer of a converted model: decided here, once, before anything is traced.

weight      integer codes of the forward pass in the narrowest type that onnxruntime gets right, in bytes for integer
            kernels, or packed for MatMulNBits where the flavour asks for it and the kernel fits; tied ones only once
table       whose rows are looked up and nothing else: codes in bytes, row by row, so that a call unpacks its own rows
bias        INT32 codes in units of input scale x weight scale, where the input is quantized; else float32
activation  scale and zero point of QuantizeLinear, whose codes are unsigned; None where it has no form for them
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import onnx_ir as ir
import torch
from torch import Tensor, nn

from export.write.matmul_nbits import MatMulNBits, in_blocks, kernel_of, pack_rows
from export.write.stored import StoredLayer, StoredTensor
from qat_core import FakeQuantize, QuantSpec
from qat_core.affine import Axis, quantize, to_groups
from qat_core.layers import (
    QuantConvTranspose1d,
    QuantConvTranspose2d,
    QuantLayer,
    quantized_layers,
)
from qat_core.tables import QuantEmbedding, QuantEmbeddingBag

FIRST_OPSET, LAST_OPSET = 21, 25  # the first has INT4
INT2_OPSET = 25
LARGEST_BIAS_CODE = 2**31 - 128  # the largest float32 below 2^31
STORAGES = (None, "int8", "packed")
IN_FLOAT = "_in_float"  # behind the name of a weight: what others than its layer read
PROCESSORS = ("any", "vnni")
FORMS = ("qdq", "packed", "int8", "ort", "float")  # the smallest first; the last has no codes
NO_INTEGER_KERNEL = (QuantConvTranspose1d, QuantConvTranspose2d)
TWO_BITS = {ir.DataType.INT2, ir.DataType.UINT2}


def stored_layers(
    converted: nn.Module,
    flavor: str = "qdq",
    storage: str | None = None,
    opset_version: int | None = None,
    processor: str = "any",
    forms: Mapping[str, str] | None = None,
    read: Collection[str] = (),
) -> list[StoredLayer]:
    """How the file holds each quantized layer, in the order of the model.

    A layer in float has no weights here: its numbers are on their grid as they are.

    Args:
        converted: what `convert` returns, on the CPU.
        flavor: "qdq", or "ort" for MatMulNBits wherever that is quick.
        storage: "int8" keeps narrower codes in INT8, "packed" lets a session unpack them to INT8; None is the
            narrowest type.
        opset_version: which types there are; None is all of them.
        processor: "any", or "vnni" for INT8 weights where others would cut their products off.
        forms: layer -> one of FORMS, in place of flavor and storage.
        read: layers whose weights something else reads, which a kernel keeps to itself.

    Raises:
        ValueError: the processor is none of these, or the flavor is "ort" and no layer has a quick kernel.
    """
    if processor not in PROCESSORS:
        raise ValueError(f"processor={processor!r} is not supported; expected one of {', '.join(PROCESSORS)}")
    layers = dict(quantized_layers(converted))
    readers: dict[FakeQuantize, dict[str, QuantLayer]] = defaultdict(dict)
    for name, layer in layers.items():
        for _, _, quantizer in layer.quantized_weights():
            readers[quantizer][name] = layer
    forms = forms or dict.fromkeys(layers, "ort" if flavor == "ort" else storage or "qdq")
    asked = {name: layer for name, layer in layers.items() if forms[name] == "ort"}
    kernels = _kernels(asked, list(readers.values()), read)
    if flavor == "ort" and not any(isinstance(kernel, MatMulNBits) for kernel in kernels.values()):
        reasons = "; ".join(f"{name or 'the model'}: {reason}" for name, reason in kernels.items())
        raise ValueError(f"flavor='ort' has a quick kernel for no layer of this model; expected a Linear: {reasons}")
    tensors: dict[FakeQuantize, StoredTensor] = {}
    stored = []
    for name, layer in layers.items():
        prefix, found = f"{name}." if name else "", kernels.get(name, "")
        kernel, reason = (found, "") if isinstance(found, MatMulNBits) else (None, found)
        if forms[name] == "float":
            stored.append(StoredLayer(name, layer, (), None, _activation(input_name(name), layer), None, ""))
            continue
        for part, weight, quantizer in layer.quantized_weights():
            if quantizer not in tensors:
                who = list(readers[quantizer].values())
                widened = {forms[reader] for reader in readers[quantizer]} & {"int8", "packed"}
                narrowest = min(widened, default=None)
                if all(is_table(reader) for reader in who):
                    tensors[quantizer] = _table(prefix + part, quantizer, weight, narrowest)
                    continue
                packs = narrowest == "packed" and _can_be_unpacked(quantizer.spec, weight, who)
                wide = "int8" if packs else narrowest
                dtype = _weight_type(quantizer.spec, who, wide, opset_version, processor)
                stored_weight = _weight(prefix + part, quantizer, weight, layer.axis, dtype, kernel)
                tensors[quantizer] = in_bytes(stored_weight) if packs else stored_weight
        weights = tuple(tensors[quantizer] for _, _, quantizer in layer.quantized_weights())
        bias, activation = _bias(f"{prefix}bias", layer), _activation(input_name(name), layer)
        stored.append(StoredLayer(name, layer, weights, bias, activation, kernel, reason))
    return stored


def default_opset(layers: Sequence[StoredLayer]) -> int:
    """The first opset that has all types."""
    return INT2_OPSET if any(weight.dtype in TWO_BITS for layer in layers for weight in layer.weights) else FIRST_OPSET


def input_name(layer: str) -> str:
    """What the input of a layer is called where it is quantized."""
    return f"{layer}.input" if layer else "input"


def narrowest_type(bits: int, symmetric: bool) -> ir.DataType:
    return ir.DataType[f"{'' if symmetric else 'U'}INT{bits}"]


def middle_code(bits: int) -> int:
    """The unsigned code that stands for zero where the codes are symmetric."""
    return 1 << bits - 1


def _kernels(
    layers: dict[str, QuantLayer], shared: Sequence[dict[str, QuantLayer]], read: Collection[str]
) -> dict[str, MatMulNBits | str]:
    """Layer -> how MatMulNBits runs it, or why not; layers that share a weight read the same bytes."""
    reason = "something else than the layer reads its weight"
    found = {name: reason if name in read else kernel_of(layer) for name, layer in layers.items()}
    for names in shared:
        if len({found.get(name) for name in names}) > 1:
            reason = f"its weight is shared by {', '.join(names)}, which cannot all read the same bytes"
            found.update({name: reason for name in names if isinstance(found.get(name), MatMulNBits)})
    return found


def _weight_type(
    spec: QuantSpec, readers: Sequence[QuantLayer], storage: str | None, opset_version: int | None, processor: str
) -> ir.DataType:
    """The narrowest type that holds the codes of a weight and that onnxruntime gets right for all who read it.

    Two bits: onnxruntime fuses INT2 weights of a quantized input into a QGemm that it then refuses to load.

    Eight bits are unsigned where an integer kernel may multiply by them. Processors without VNNI multiply bytes in
    pairs and cut each sum off at 16 bits: two times 255 * 127 does not fit, and an answer is wrong by percents.
    onnxruntime does so where an integer kernel gets INT8 weights, and takes instructions that do not overflow where it
    gets UINT8. Narrower codes are too small to matter: 2 * 255 * 8 fits. With VNNI nothing is cut off, and INT8 is
    quicker. No integer kernel takes a transposed convolution.
    """
    integer = [r for r in readers if r.has_integer_accumulator() and not isinstance(r, NO_INTEGER_KERNEL)]
    if spec.bits == 8 and integer and processor == "any":
        return ir.DataType.UINT8
    static = any(layer.input_quantizer is not None and not layer.input_quantizer.spec.dynamic for layer in readers)
    bits = 8 if storage == "int8" else spec.storage_bits
    if static or (opset_version or LAST_OPSET) < INT2_OPSET:
        bits = max(bits, 4)
    return narrowest_type(bits, spec.symmetric)


def _weight(
    name: str, quantizer: FakeQuantize, weight: Tensor, axis: Axis, dtype: ir.DataType, kernel: MatMulNBits | None
) -> StoredTensor:
    """The codes that the forward pass computes from a weight, in the blocks of a kernel or for DequantizeLinear.

    On the half-shifted grid a real number is (code + 0.5) * scale, rounded once. DequantizeLinear of scale and an
    Add of half a step would round twice, so there the codes are dequantized with scale 1 and multiplied afterwards.
    """
    spec = quantizer.spec
    if kernel is not None:
        parts = in_blocks(kernel, quantizer, weight)
        return StoredTensor(name, spec, parts, ir.DataType.UINT8, weight.shape, kernel=kernel)
    codes = quantizer.codes(weight)
    of_experts = isinstance(axis, tuple)
    axis = next(d for d in range(weight.dim()) if d not in axis) if isinstance(axis, tuple) else axis
    scale, zero_point = quantizer.source.qparams(to_groups(weight, spec))
    zero_point = torch.zeros_like(scale) if zero_point is None else zero_point  # none, and no integer kernel is found
    if spec.symmetric and dtype == ir.DataType.UINT8:
        middle = middle_code(8)
        codes, zero_point = (codes.short() + middle).to(torch.uint8), torch.full_like(scale, middle)
    if spec.half_shift:
        codes = to_groups(codes, spec)
        unit, zero_point = torch.ones(()), torch.zeros((), dtype=codes.dtype)
        parts = {"scale": scale, "codes": codes, "unit": unit, "zero_point": zero_point}
        return StoredTensor(name, spec, parts, dtype, weight.shape, axis)
    block_size = 0
    if spec.granularity == "per_group":
        scale, zero_point = scale.squeeze(-1), zero_point.squeeze(-1)  # (rows, groups)
        codes, axis, block_size = codes.flatten(1), 1, spec.group_size
    elif of_experts and scale.dim():  # a block is all that an output is made of
        block_size = weight.shape[axis]
    elif scale.dim():
        scale, zero_point = scale.flatten(), zero_point.flatten()
    parts = {"codes": codes, "scale": scale, "zero_point": zero_point.to(codes.dtype)}
    return StoredTensor(name, spec, parts, dtype, weight.shape, axis, block_size)


def _can_be_unpacked(spec: QuantSpec, weight: Tensor, readers: Sequence[QuantLayer]) -> bool:
    """Are its codes narrower than bytes, do they fill some, and is there an integer kernel for all who read them?"""
    integer = all(r.has_integer_accumulator() and not isinstance(r, NO_INTEGER_KERNEL) for r in readers)
    return integer and spec.storage_bits < 8 and weight.numel() * spec.storage_bits % 8 == 0


def in_bytes(stored: StoredTensor) -> StoredTensor:
    """A tensor of wide codes as bytes of several narrow ones."""
    bits = stored.spec.storage_bits
    codes = stored.parts["codes"].int().reshape(1, -1) & (1 << bits) - 1
    parts = {("bytes" if role == "codes" else role): part for role, part in stored.parts.items()}
    return replace(stored, parts=parts | {"bytes": pack_rows(codes, bits)[0]}, packed_bits=bits)


def is_table(layer: QuantLayer) -> bool:
    """Does it look rows up, wherever it reads its weight? A bag that leaves some out has to know the whole table."""
    if isinstance(layer, QuantEmbeddingBag):
        return layer.padding_idx is None
    return isinstance(layer, QuantEmbedding)


def _table(name: str, quantizer: FakeQuantize, weight: Tensor, storage: str | None) -> StoredTensor:
    """Codes (rows, width) or (rows, groups, width): bytes, each of one code or of several where groups fill them."""
    spec = quantizer.spec
    bits = 8 if storage == "int8" else spec.storage_bits
    if spec.granularity == "per_group" and spec.group_size * bits % 8:
        bits = 8
    scale, zero_point = quantizer.source.qparams(to_groups(weight, spec))
    codes = to_groups(quantizer.codes(weight), spec)
    if bits < 8:
        codes = pack_rows(codes.flatten(0, -2).int() & (1 << bits) - 1, bits).reshape(*codes.shape[:-1], -1)
    parts = {"codes": codes, "scale": scale}
    if zero_point is not None:
        parts["zero_point"] = zero_point.to(torch.uint8)
    dtype = ir.DataType.INT8 if codes.dtype == torch.int8 else ir.DataType.UINT8
    return StoredTensor(name, spec, parts, dtype, weight.shape, row_bits=bits)


def _bias(name: str, layer: QuantLayer) -> StoredTensor | None:
    """INT32 codes in the unit of the layer's accumulator, input scale x weight scale: () or (out,).

    The standard has no zero point for INT32, and WebGPU refuses one; integer kernels are found without.
    """
    if layer.input_quantizer is None or not layer.has_integer_accumulator() or layer.bias is None:
        return None
    input_scale, _ = layer.input_quantizer.source.qparams(torch.empty(0))
    weight_scale, _ = layer.weight_quantizer.source.qparams(layer.weight)
    unit = input_scale * weight_scale
    if unit.dim():
        unit = unit.flatten().repeat(layer.bias.numel() // unit.numel())  # the groups of a ConvTranspose share scales
    codes = quantize(layer.bias, unit, None, -LARGEST_BIAS_CODE, LARGEST_BIAS_CODE).to(torch.int32)
    parts = {"codes": codes, "scale": unit}
    return StoredTensor(name, layer.weight_quantizer.spec, parts, ir.DataType.INT32, layer.bias.shape)


def _activation(name: str, layer: QuantLayer) -> StoredTensor | None:
    """Of 8 bits, as far as is known before the graph is. Signed codes are counted from the middle: onnxruntime
    makes them unsigned itself on processors without VNNI, and then cannot load where a Reshape follows."""
    if layer.input_quantizer is None or layer.input_quantizer.spec.dynamic or layer.input_quantizer.spec.half_shift:
        return None
    spec = layer.input_quantizer.spec
    scale, zero_point = layer.input_quantizer.source.qparams(torch.empty(0))
    zero_point = torch.full_like(scale, middle_code(8)) if zero_point is None else zero_point
    parts = {"scale": scale, "zero_point": zero_point.to(torch.uint8)}
    return StoredTensor(name, spec, parts, ir.DataType.UINT8, scale.shape)
