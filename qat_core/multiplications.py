"""How many numbers a model multiplies, layer by layer and in all."""

from collections import Counter
from functools import partial
from typing import Any

from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.utils.flop_counter import FlopCounterMode

from qat_core.batches import call, in_evaluation
from qat_core.experts import is_experts
from qat_core.layers import is_conv1d


def multiplications(model: nn.Module, batch: Any) -> tuple[Counter[str], Counter[str], int]:
    """How many, by where they are and in all.

    Returns:
        Layer -> those with its weights; module -> those that its own forward makes without a layer's weights, as scores
        and values of attention; all matrix products, convolutions and attention together.
    """
    layers, recurrent = Counter[str](), 0

    def count(name: str, module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any], answer: Any) -> None:
        nonlocal recurrent
        inputs = [*arguments, *named.values()]
        if isinstance(module, nn.MultiheadAttention) and len(inputs) >= 3:
            size = module.embed_dim
            layers[name] += sum(x.numel() * size for x in inputs[:3])
            layers[f"{name}.out_proj".lstrip(".")] += inputs[0].numel() * size
        elif isinstance(module, nn.RNNBase):
            steps = getattr(inputs[0], "data", inputs[0]).numel() // module.input_size
            done = steps * sum(p.numel() for n, p in module.named_parameters() if n.startswith("weight"))
            layers[name] += done
            recurrent += done  # which the counter below does not know
        elif isinstance(module, nn.Embedding | nn.EmbeddingBag):
            pass
        elif isinstance(module, _ConvTransposeNd) or is_conv1d(module):
            layers[name] += inputs[0].numel() * module.get_parameter("weight")[0].numel()
        elif isinstance(module, nn.Linear | _ConvNd):
            layers[name] += answer.numel() * module.get_parameter("weight")[0].numel()

    handles = [
        module.register_forward_hook(partial(count, name), with_kwargs=True) for name, module in model.named_modules()
    ]
    try:
        with in_evaluation(model), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            call(model, batch)  # with gradients, so that no fused kernel hides what it multiplies
    finally:
        for handle in handles:
            handle.remove()
    products = _products(model, {name: sum(of.values()) // 2 for name, of in counter.get_flop_counts().items()}, layers)
    for name, module in model.named_modules():
        if is_experts(module):  # whose own forward multiplies by their weights
            layers[name] += products.pop(name, 0)
    return layers, products, counter.get_total_flops() // 2 + recurrent


def _products(model: nn.Module, found: dict[str, int], layers: Counter[str]) -> Counter[str]:
    """What is left of each module's own once the modules inside it and the layers are taken away.

    Args:
        found: module, as the counter calls it by the class of the model, -> all in its call.
        layers: as counted; a layer that is not called, but read, belongs to the module around it.
    """
    root = type(model).__name__
    called = {name.removeprefix(root).lstrip("."): count for name, count in found.items() if name.startswith(root)}
    left = Counter(called)

    def take(name: str, count: int) -> None:
        while name and name not in called:
            name = name.rpartition(".")[0]
        left[name] -= count

    for name, count in called.items():
        if name:
            take(name.rpartition(".")[0], count)
    for name, count in layers.items():
        if not isinstance(model.get_submodule(name), nn.RNNBase):  # which the counter does not know
            take(name, count)
    return +left
