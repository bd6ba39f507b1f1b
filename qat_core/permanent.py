"""Weights that something computes: parametrizations, and what the older weight_norm and pruning do before each call."""

from torch import nn
from torch.nn.utils import parametrize


def make_permanent(layer: nn.Module) -> None:
    """What is computed anew whenever it is asked for, or before each call, becomes a parameter as it is now."""
    if parametrize.is_parametrized(layer):
        values = {name: nn.Parameter(getattr(layer, name)) for name in layer.get_submodule("parametrizations")._modules}
        del layer._modules["parametrizations"]
        layer.__class__ = type(layer).__bases__[0]  # torch's own removal would spoil the class, which copies share
        for name, value in values.items():
            layer.register_parameter(name, value)
    for key, hook in list(layer._forward_pre_hooks.items()):
        if hasattr(hook, "remove"):  # of pruning, and of the older weight_norm and spectral_norm
            hook.remove(layer)
            layer._forward_pre_hooks.pop(key, None)
