"""How many numbers a model multiplies, layer by layer and in all."""

from collections import Counter
from functools import partial
from typing import Any

from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.utils.flop_counter import FlopCounterMode

from qat_core.batches import call, in_evaluation
from qat_core.layers import is_conv1d


def multiplications(model: nn.Module, batch: Any) -> tuple[Counter[str], int]:
    """Those with weights, by the name of the layer, and all of matrix products, convolutions and attention together."""
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
    return layers, counter.get_total_flops() // 2 + recurrent
