"""Fold each BatchNorm into the layer before it: one affine map after another is one affine map.

    BN(W x + b) = gamma * (W x + b - mean) / sqrt(var + eps) + beta = W' x + b'

Without folding, a quantized network would still multiply by gamma / sqrt(var) in float at run time, and the ranges
of its weights would not be those of the weights that run.

Source: Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference", section 3.2.
"""

import torch
from torch import nn
from torch.nn.utils import fusion

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d)


def fold_batch_norm(model: nn.Module) -> nn.Module:
    """Replace each BatchNorm that directly follows a convolution or linear layer by nn.Identity, in place.

    One that normalizes something else besides stays, as does one behind a grouped transposed convolution. A linear
    layer's input is (batch, features). The running statistics are folded, so the model must have been trained, or at
    least have seen data.

    Raises:
        ValueError: the order of the layers cannot be traced; the message passes on why.
    """
    modules = dict(model.named_modules())
    for layer_name, norm_name in _pairs(model):
        layer, norm = modules[layer_name], modules[norm_name]
        training = layer.training
        if norm.weight is None:  # which fuse_linear_bn_eval cannot do without
            mean = norm.running_mean
            norm.weight, norm.bias = nn.Parameter(torch.ones_like(mean)), nn.Parameter(torch.zeros_like(mean))
        if isinstance(layer, nn.Linear):
            folded: nn.Module = fusion.fuse_linear_bn_eval(layer.eval(), norm.eval())
        else:
            folded = fusion.fuse_conv_bn_eval(layer.eval(), norm.eval(), isinstance(layer, TRANSPOSED))
        model.set_submodule(layer_name, folded.train(training))
        model.set_submodule(norm_name, nn.Identity())
    return model


def _pairs(model: nn.Module) -> list[tuple[str, str]]:
    """(layer, BatchNorm) where the BatchNorm reads that layer's output and nothing else does."""
    modules = dict(model.named_modules())
    if not any(isinstance(m, BATCH_NORMS) for m in modules.values()):
        return []
    try:
        graph = torch.fx.Tracer().trace(model)
    except Exception as error:
        raise ValueError(f"fold=True cannot follow the forward of {type(model).__name__}: {error}") from error
    pairs = []
    calls = [str(node.target) for node in graph.nodes if node.op == "call_module"]
    read = {str(node.target).rpartition(".")[0] for node in graph.nodes if node.op == "get_attr"}
    for node in graph.nodes:
        if node.op != "call_module" or not isinstance(modules[str(node.target)], BATCH_NORMS):
            continue
        (before,) = node.all_input_nodes
        names = str(before.target), str(node.target)
        if (
            before.op == "call_module"
            and len(before.users) == 1
            and all(calls.count(name) == 1 and name not in read for name in names)
            and _is_foldable(modules[names[0]], modules[names[1]])
        ):
            pairs.append(names)
    return pairs


def _is_foldable(layer: nn.Module, norm: nn.Module) -> bool:
    """One affine map after another, with nothing of the user's own before, between or behind."""
    if not isinstance(layer, (nn.Linear, *CONVS, *TRANSPOSED)) or norm.running_mean is None:
        return False
    if isinstance(layer, TRANSPOSED) and layer.groups > 1:  # its weight has no axis with all output channels
        return False
    return not any(
        module._forward_hooks or module._forward_pre_hooks or hasattr(module, "parametrizations")
        for module in (layer, norm)
    )
