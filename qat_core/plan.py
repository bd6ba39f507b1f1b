"""What would be quantized, what not and why: decided here, before anything changes."""

import fnmatch
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from qat_core.layers import (
    QuantConv1d,
    QuantConv2d,
    QuantConv3d,
    QuantConvTranspose1d,
    QuantConvTranspose2d,
    QuantEmbedding,
    QuantEmbeddingBag,
    QuantLayer,
    QuantLinear,
)
from qat_core.sequence import QuantGRU, QuantLSTM, QuantMultiheadAttention
from qat_core.spec import QATConfig, QuantSpec

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


@dataclass(frozen=True)
class PlannedLayer:
    """One layer with parameters of its own.

    Attributes:
        name: in the model; "" is the model itself.
        owner: the first layer that has its weight, where layers share one; else its own name.
        kind: its class.
        shapes: of the weights that are quantized, or of all its parameters where none is.
        config: what applies to it, or None when it stays in float.
        input_spec: how its input is quantized, or None.
        reason: why it stays in float; empty when it does not.
        bytes_before, bytes_after: of all its parameters, scales and zero points included.
    """

    name: str
    owner: str
    kind: str
    shapes: tuple[tuple[int, ...], ...]
    config: QATConfig | None
    input_spec: QuantSpec | None
    reason: str
    bytes_before: int
    bytes_after: int


@dataclass(frozen=True)
class Plan:
    """Every layer that has parameters, in the order of the model; printed as a table."""

    layers: tuple[PlannedLayer, ...]

    @property
    def quantized(self) -> tuple[PlannedLayer, ...]:
        """The layers that would be quantized."""
        return tuple(layer for layer in self.layers if layer.config is not None)

    @property
    def bytes_before(self) -> int:
        return sum(layer.bytes_before for layer in self.layers)

    @property
    def bytes_after(self) -> int:
        return sum(layer.bytes_after for layer in self.layers)

    def __str__(self) -> str:
        header = ("layer", "kind", "shape", "bits", "granularity", "bytes", "after")
        rows = [header, *map(_cells, self.layers)]
        rows.append(("total", "", "", "", "", f"{self.bytes_before:,}", f"{self.bytes_after:,}"))
        widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
        return "\n".join(line.rstrip() for line in lines)


def plan(model: nn.Module, config: QATConfig | None = None) -> Plan:
    """Dry run of `prepare`: which layers would be quantized, how, and which not and why.

    Raises:
        ValueError: config is no QATConfig, or an override's pattern matches no layer.
    """
    config = QATConfig() if config is None else config
    if not isinstance(config, QATConfig):
        raise ValueError(f"config={config!r}; expected a QATConfig, such as QATConfig(weight=QuantSpec(bits=4))")
    layers, owners = [], dict[int, str]()
    for name, module in model.named_modules():
        own = list(module.parameters(recurse=False))
        if own or _is_container_with_weights(module):
            layers.append(_plan_layer(name, module, config, owners))
            for parameter in own:
                owners.setdefault(id(parameter), name)
    for pattern in config.overrides:
        if not any(fnmatch.fnmatchcase(layer.name, pattern) for layer in layers):
            names = ", ".join(layer.name for layer in layers)
            raise ValueError(f"override {pattern!r} matches no layer; expected a glob over {names}")
    return Plan(tuple(layers))


def config_for(name: str, config: QATConfig) -> tuple[QATConfig | None, str]:
    """What applies to the layer of that name, and the override that says so; the first that matches wins."""
    for pattern, override in config.overrides.items():
        if fnmatch.fnmatchcase(name, pattern):
            return override, pattern
    return config, ""


def quantized_class(module: nn.Module) -> type[QuantLayer] | None:
    """The quantized class for a module: its own type's, or a base's whose forward it has not replaced."""
    for kind, twin in QUANTIZED.items():
        if type(module) is kind or (isinstance(module, kind) and type(module).forward is kind.forward):
            return twin
    return None


def in_float(layer: QuantLayer) -> None:
    """Make a layer the float layer again that it was, in its own place."""
    for part in ("input", *layer.weight_names()):
        layer._modules.pop(f"{part}_quantizer", None)
        layer.__dict__.pop(f"{part}_quantizer", None)
    layer.__class__ = next(kind for kind, twin in QUANTIZED.items() if type(layer) is twin)  # type: ignore[assignment]


def _plan_layer(name: str, module: nn.Module, config: QATConfig, owners: dict[int, str]) -> PlannedLayer:
    own = dict(module.named_parameters(recurse=False))
    chosen, pattern = config_for(name, config)
    reason = f"left in float by override {pattern!r}" if chosen is None else _obstacle(module)
    twin = quantized_class(module)
    lazy = any(isinstance(p, nn.parameter.UninitializedParameter) for p in own.values())
    weights = () if reason or twin is None else twin.weight_names(module)
    before = 0 if lazy else sum(p.numel() * p.element_size() for p in own.values() if id(p) not in owners)
    after, input_spec = before, None
    if chosen is not None and not reason and twin is not None:
        input_spec = twin.input_spec(chosen)
        for weight in (own[w] for w in weights if id(own[w]) not in owners):
            after += weight_bytes(weight, chosen.weight, twin.axis) - weight.numel() * weight.element_size()
    shapes = () if lazy else tuple(tuple(own[w].shape) for w in (weights or own))
    chosen = None if reason else chosen
    owner = next((owners[id(own[w])] for w in weights if id(own[w]) in owners), name)
    return PlannedLayer(name, owner, type(module).__name__, shapes, chosen, input_spec, reason, before, after)


def weight_bytes(weight: Tensor, spec: QuantSpec, axis: int) -> int:
    """What a weight takes in a file: codes of its storage width, and a float32 scale with a code as zero point each."""
    scales = {
        "per_tensor": 1,
        "per_channel": weight.shape[axis],
        "per_group": weight.shape[0] * math.ceil(weight[0].numel() / spec.group_size),
    }[spec.granularity]
    return math.ceil(weight.numel() * spec.storage_bits / 8) + 4 * scales + math.ceil(scales * spec.storage_bits / 8)


def _obstacle(module: nn.Module) -> str:
    """Why this module cannot be quantized; empty when it can."""
    twin = quantized_class(module)
    kind = type(module).__name__
    if twin is None:
        bases = [k.__name__ for k in QUANTIZED if isinstance(module, k)]
        return f"{kind} replaces the forward of {bases[0]}" if bases else f"no quantized {kind}"
    if "forward" in vars(module):
        return f"the forward of this {kind} was replaced"
    parameters = dict(module.named_parameters(recurse=False))
    if any(isinstance(p, nn.parameter.UninitializedParameter) for p in parameters.values()):
        return "lazy: run one batch through the model first"
    if hasattr(module, "parametrizations"):
        return "its weight is parametrized: remove the parametrization first"
    base = twin.__bases__[-1]
    if own := _own_ways(module, base):
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
            return f"its {name!r} is not a parameter of its own: make what computes it permanent first"
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


def _cells(layer: PlannedLayer) -> tuple[str, ...]:
    shape = ", ".join(" x ".join(map(str, s)) or "scalar" for s in layer.shapes)
    name = layer.name or "(model)"
    before, after = f"{layer.bytes_before:,}", f"{layer.bytes_after:,}"
    if layer.config is None:
        return name, layer.kind, shape, "float", layer.reason, before, after
    spec, activation = layer.config.weight, layer.input_spec
    bits = f"W{spec.bits:g}" + (f" A{activation.bits:g}" if activation else "")
    granularity = spec.granularity + (f" {spec.group_size}" if spec.granularity == "per_group" else "")
    return name, layer.kind, shape, bits, granularity, before, after


def check_finite(name: str, tensors: Iterator[tuple[str, Tensor]]) -> None:
    """Raises ValueError that names the first tensor with NaN or infinite values."""
    for part, tensor in tensors:
        bad = int((~torch.isfinite(tensor)).sum())
        if bad:
            raise ValueError(f"the {part} of layer {name or 'model'!r} has {bad} values that are NaN or infinite")
