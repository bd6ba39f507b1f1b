"""What would be quantized, what not and why: decided here, before anything changes."""

import fnmatch
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from qat_core.affine import Axis, reduced_dims
from qat_core.batches import require_module
from qat_core.experts import QuantExperts, is_experts, quantized_experts
from qat_core.layers import (
    QuantConv1D,
    QuantConv1d,
    QuantConv2d,
    QuantConv3d,
    QuantConvTranspose1d,
    QuantConvTranspose2d,
    QuantLayer,
    QuantLinear,
    is_conv1d,
)
from qat_core.multiplications import multiplications
from qat_core.planned import Plan, PlannedLayer
from qat_core.sequence import QuantGRU, QuantLSTM, QuantMultiheadAttention
from qat_core.spec import QATConfig, QuantSpec, class_key
from qat_core.tables import QuantEmbedding, QuantEmbeddingBag

QUANTIZED: dict[type[nn.Module], type[QuantLayer]] = {
    nn.Linear: QuantLinear,
    nn.Conv1d: QuantConv1d,
    nn.Conv2d: QuantConv2d,
    nn.Conv3d: QuantConv3d,
    nn.ConvTranspose1d: QuantConvTranspose1d,
    nn.ConvTranspose2d: QuantConvTranspose2d,
    nn.Embedding: QuantEmbedding,
    nn.EmbeddingBag: QuantEmbeddingBag,
    nn.MultiheadAttention: QuantMultiheadAttention,
    nn.LSTM: QuantLSTM,
    nn.GRU: QuantGRU,
}
HARMLESS = {"__init__", "reset_parameters", "extra_repr", "__repr__", "__dict__", "__weakref__", "__annotate_func__"}


def plan(model: nn.Module, config: QATConfig | None = None, batch: Any = None) -> Plan:
    """Dry run of `prepare`: which layers would be quantized, how, and which not and why.

    Args:
        model, config: as `prepare` takes them.
        batch: a tensor, a tuple or a dict of arguments that the model is called with once, to count multiplications.

    Raises:
        ValueError: config is no QATConfig, an override matches no layer, or the batch is not what the model takes.
    """
    require_module(model)
    config = QATConfig() if config is None else config
    if not isinstance(config, QATConfig):
        raise ValueError(f"config={config!r}; expected a QATConfig, such as QATConfig(weight=QuantSpec(bits=4))")
    layers, stored, asked = [], _Stored(), dict[str, Collection[str]]()
    modules = dict(model.named_modules())
    for name, module in modules.items():
        if any(True for _ in module.parameters(recurse=False)) or _is_container_with_weights(module):
            asked[name] = _kinds(name, modules)
            layers.append(_plan_layer(name, module, *config_for(name, asked[name], config), stored))
    layers = [layer if layer.config else _in_float(layer, modules[layer.name], stored) for layer in layers]
    for pattern in config.overrides:
        if not any(_matches(pattern, name, kinds) for name, kinds in asked.items()):
            raise ValueError(f"override {pattern!r} matches no layer; expected a glob over {', '.join(asked)}")
    if batch is None:
        return Plan(tuple(layers))
    counted, products, total = multiplications(model, batch)
    return Plan(tuple(replace(layer, multiplications=counted[layer.name]) for layer in layers), total, products)


def config_for(name: str, kinds: Collection[str], config: QATConfig) -> tuple[QATConfig | None, str]:
    """What applies to the layer of that name, and the override that says so; the first that matches wins."""
    for pattern, override in config.overrides.items():
        if _matches(pattern, name, kinds):
            return override, str(pattern)
    return config, ""


def _matches(pattern: object, name: str, kinds: Collection[str]) -> bool:
    return pattern in kinds or fnmatch.fnmatchcase(name, str(pattern))


def _kinds(name: str, modules: Mapping[str, nn.Module]) -> set[str]:
    """The classes that a layer is of, and those of the modules that hold it, as overrides name them."""
    parts = name.split(".") if name else []
    holders = [modules[".".join(parts[:depth])] for depth in range(len(parts) + 1)]
    return {class_key(kind) for holder in holders for kind in type(holder).__mro__}


def quantized_class(module: nn.Module) -> type[QuantLayer] | None:
    """The quantized class for a module: its own type's, or a base's whose forward it has not replaced."""
    if is_conv1d(module):
        return QuantConv1D
    if is_experts(module) and not isinstance(module, QuantLayer):
        return quantized_experts(module)
    for kind, twin in QUANTIZED.items():
        if type(module) is kind or (isinstance(module, kind) and type(module).forward is kind.forward):
            return twin
    return None


def in_float(layer: QuantLayer) -> None:
    """Make a layer the float layer again that it was, in its own place."""
    for part in ("input", *layer.weight_names()):
        layer._modules.pop(f"{part}_quantizer", None)
        layer.__dict__.pop(f"{part}_quantizer", None)
    own = layer.kind if isinstance(layer, QuantExperts) else None
    layer.__class__ = own or next((kind for kind, twin in QUANTIZED.items() if type(layer) is twin), nn.Module)  # type: ignore[assignment]


class _Stored:
    """Parameters that layers before this one hold: a shared one is counted once, and once more where one layer
    quantizes it and another does not.

    Attributes:
        seen: all of them.
        in_float: those that somebody reads in float.
        owners: weight that is quantized -> the first layer that has it.
    """

    def __init__(self) -> None:
        self.seen: set[Tensor] = set()
        self.in_float: set[Tensor] = set()
        self.owners: dict[Tensor, str] = {}


def _plan_layer(name: str, module: nn.Module, chosen: QATConfig | None, pattern: str, stored: _Stored) -> PlannedLayer:
    own = dict(module.named_parameters(recurse=False))
    reason = f"left in float by override {pattern!r}" if chosen is None else _obstacle(module)
    twin = quantized_class(module)
    lazy = any(isinstance(p, nn.parameter.UninitializedParameter) for p in own.values())
    weights = () if reason or twin is None else twin.weight_names(module)
    before, after, count, input_spec, owner = 0, 0, 0, None, name
    if chosen is not None and not reason and twin is not None:
        input_spec = twin.input_spec(chosen)
        for weight in (own[w] for w in weights):
            if weight not in stored.owners:
                after += weight_bytes(weight, chosen.weight, twin.axis)
        owner = next((stored.owners[own[w]] for w in weights if own[w] in stored.owners), name)
        stored.owners.update({own[w]: name for w in weights if own[w] not in stored.owners})
    for part, parameter in own.items() if not lazy else ():
        size = parameter.numel() * parameter.element_size()
        before += size if parameter not in stored.seen else 0
        count += parameter.numel() if parameter not in stored.seen else 0
        if part not in weights:
            after += size if parameter not in stored.in_float else 0
            stored.in_float.add(parameter)
        stored.seen.add(parameter)
    shapes = () if lazy else tuple(tuple(own[w].shape) for w in (weights or own))
    chosen = None if reason else chosen
    return PlannedLayer(name, owner, type(module).__name__, shapes, chosen, input_spec, reason, before, after, count)


def _in_float(layer: PlannedLayer, module: nn.Module, stored: _Stored) -> PlannedLayer:
    """It says so where another layer quantizes a weight that this one has as well."""
    others = [stored.owners[p] for p in module.parameters(recurse=False) if p in stored.owners]
    if not others:
        return layer
    return replace(layer, reason=f"{layer.reason}; it reads the weight of {others[0]!r} in float")


def weight_bytes(weight: Tensor, spec: QuantSpec, axis: Axis) -> int:
    """What a weight takes in a file: codes of its storage width, and a float32 scale with a code as zero point each."""
    shared = reduced_dims(weight, spec, axis)
    scales = {
        "per_tensor": 1,
        "per_channel": math.prod(size for dim, size in enumerate(weight.shape) if dim not in shared),
        "per_group": weight.shape[0] * math.ceil(weight[0].numel() / spec.group_size),
    }[spec.granularity]
    return math.ceil(weight.numel() * spec.storage_bits / 8) + 4 * scales + math.ceil(scales * spec.storage_bits / 8)


def _obstacle(module: nn.Module) -> str:
    """Why this module cannot be quantized; empty when it can."""
    twin = quantized_class(module)
    kind = type(module).__name__
    if isinstance(module, torch.jit.ScriptModule):
        return "it is compiled by torch.jit: prepare the module that it was made of"
    if twin is None:
        bases = [k.__name__ for k in QUANTIZED if isinstance(module, k)]
        return f"{kind} replaces the forward of {bases[0]}" if bases else f"no quantized {kind}"
    if "forward" in vars(module):
        return f"the forward of this {kind} was replaced"
    parameters = dict(module.named_parameters(recurse=False))
    if any(isinstance(p, nn.parameter.UninitializedParameter) for p in parameters.values()):
        return "lazy: run one batch through the model first"
    if hasattr(module, "parametrizations"):
        return "its weight is parametrized: remove the parametrization first, or apply it after prepare"
    base = twin.__bases__[-1]
    if not is_conv1d(module) and (own := _own_ways(module, base)):
        return f"{kind} adds to {base.__name__} or replaces: {', '.join(own)}"
    if any(not p.dtype.is_floating_point for p in parameters.values()):
        return "its weight is not floating-point"
    if isinstance(module, nn.Embedding | nn.EmbeddingBag) and (module.max_norm is not None or module.sparse):
        return "max_norm and sparse gradients change the latent table behind the quantizer's back"
    if isinstance(module, nn.MultiheadAttention):
        if not module._qkv_same_embed_dim:
            return "kdim and vdim differ from embed_dim"
        if module.bias_k is not None or module.add_zero_attn:
            return "bias_k, bias_v and add_zero_attn are not supported"
    if isinstance(module, nn.RNNBase) and module.proj_size:
        return "proj_size is not supported"
    for name in twin.weight_names(module):
        if name not in parameters:  # pruning, the older weight_norm and spectral_norm compute it before each call
            return f"its {name!r} is not a parameter: make what computes it permanent first, or apply it after prepare"
        if not parameters[name].numel():
            return "its weight has no elements"
    return ""


def _own_ways(module: nn.Module, base: type[nn.Module]) -> list[str]:
    """What a subclass of a layer can do and the layer's twin cannot; how it is made or printed is no matter."""
    more = set(type(module).__mro__) - set(base.__mro__)
    own = {name for cls in more for name, value in vars(cls).items() if callable(value) or hasattr(value, "__get__")}
    return sorted(own - HARMLESS)


def _is_container_with_weights(module: nn.Module) -> bool:
    """Modules whose parameters all live in parametrizations look empty from outside."""
    return hasattr(module, "parametrizations") and isinstance(module, tuple(QUANTIZED))


def check_finite(name: str, tensors: Iterator[tuple[str, Tensor]]) -> None:
    """Raises ValueError that names the first tensor with NaN or infinite values."""
    for part, tensor in tensors:
        bad = 0 if tensor.is_meta else int((~torch.isfinite(tensor)).sum())
        if bad:
            raise ValueError(f"the {part} of layer {name or 'model'!r} has {bad} values that are NaN or infinite")
