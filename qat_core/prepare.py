"""From a model to its quantized twin and on to what is exported: prepare, then convert."""

import copy
from collections.abc import Iterator

import torch
from torch import nn

from qat_core.layers import QuantLinear
from qat_core.spec import QATConfig

QUANTIZED = {nn.Linear: QuantLinear}


def prepare(model: nn.Module, config: QATConfig | None = None, inplace: bool = False) -> nn.Module:
    """The same architecture with every layer that can be quantized fake-quantized.

    Train the result as any model: its weights stay float32 and learn through the straight-through
    estimator, while each forward pass sees them on the grid.

    Args:
        model: any module.
        config: what to quantize and how; None is 4-bit weights, per channel.
        inplace: change `model` itself; otherwise it is left alone and a copy is returned.

    Raises:
        ValueError: nothing in the model would be quantized, a weight is not finite, or a group size
            does not fit.
    """
    config = config or QATConfig()
    if any(True for _ in quantized_layers(model)):
        raise ValueError("the model is prepared already; call prepare on the FP32 model")
    if not inplace:
        model = copy.deepcopy(model)
    names = [name for name, module in model.named_modules() if type(module) in QUANTIZED]
    if not names:
        kinds = sorted(
            {type(m).__name__ for m in model.modules() if next(m.parameters(recurse=False), None) is not None}
        )
        raise ValueError(
            f"nothing to quantize in {type(model).__name__}: expected a layer of type "
            f"{', '.join(t.__name__ for t in QUANTIZED)}; found parameters in {', '.join(kinds) or 'none at all'}"
        )
    for name in names:
        linear = model.get_submodule(name)
        layer = QUANTIZED[nn.Linear].from_float(linear, config)  # type: ignore[arg-type]
        _check_finite(name, layer)
        layer.weight_quantizer.codes(layer.weight)
        if not name:
            return layer
        model.set_submodule(name, layer)
    return model


@torch.no_grad()
def convert(model: nn.Module) -> nn.Module:
    """A copy whose weights lie on the grid and whose scales are constants: what is exported.

    Raises:
        ValueError: the model was not prepared, or a weight is not finite.
    """
    model = copy.deepcopy(model)
    layers = list(quantized_layers(model))
    if not layers:
        raise ValueError(f"{type(model).__name__} was not prepared: expected a model from prepare(model, config)")
    for name, layer in layers:
        _check_finite(name, layer)
        layer.weight_quantizer.freeze(layer.weight)
        layer.weight.copy_(layer.weight_quantizer(layer.weight))
        layer.requires_grad_(False)
    return model.eval()


def quantized_layers(model: nn.Module) -> Iterator[tuple[str, QuantLinear]]:
    """Name and layer of everything in the model that quantizes its weight."""
    for name, module in model.named_modules():
        if isinstance(module, QuantLinear):
            yield name, module


def _check_finite(name: str, layer: QuantLinear) -> None:
    bad = int((~torch.isfinite(layer.weight)).sum())
    if bad:
        raise ValueError(f"the weight of layer {name or 'model'!r} has {bad} values that are NaN or infinite")
