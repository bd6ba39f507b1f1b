"""Fold each BatchNorm into the layer before it: one affine map after another is one affine map.

    BN(W x + b) = gamma * (W x + b - mean) / sqrt(var + eps) + beta = W' x + b'

Without folding, a quantized network would still multiply by gamma / sqrt(var) in float at run time, and the ranges
of its weights would not be those of the weights that run.

Source: Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference", section 3.2.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import fusion

from qat_core.batches import unwrapped

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d)


class Folded(nn.Identity):
    """What is left of a BatchNorm: it held the second dimension for the channels, as the layer's batches have them.
    One of timm's has an activation inside, which stays.

    Of a sequence of rows, (batch, length, features), a BatchNorm would have normalized the positions, and no weight of
    a linear layer can do so.

    Args:
        dims: of those batches: 2 for a linear layer, 4 for images.
        inside: what the BatchNorm went on with.
    """

    def __init__(self, dims: int, inside: Iterable[nn.Module] = ()) -> None:
        super().__init__()
        self.dims, self.inside = dims, nn.Sequential(*inside)

    def forward(self, input: Tensor) -> Tensor:
        if input.dim() != self.dims:
            raise ValueError(
                f"a BatchNorm that normalizes {tuple(input.shape)} cannot be folded into the layer before it; "
                f"expected {self.dims} dimensions, or fold=False"
            )
        answer: Tensor = self.inside(input)
        return answer


def fold_batch_norm(model: nn.Module) -> nn.Module:
    """Fold each BatchNorm that directly follows a convolution or linear layer, in place; an nn.Identity is left.

    One that normalizes something else besides stays, as does one behind a grouped transposed convolution or behind a
    layer that shares its weight. A linear layer's input is (batch, features). The running statistics are folded, so the
    model must have been trained, or at least have seen data. The folded weight and bias learn where one of those that
    they are made of did.

    Raises:
        ValueError: the order of the layers cannot be traced; the message passes on why.
    """
    model, wrapped = unwrapped(model), model
    modules = dict(model.named_modules())
    for layer, norm in [(modules[layer], modules[norm]) for layer, norm in _pairs(model)]:
        _fold(layer, norm)
        left = Folded(layer.weight.dim(), norm.children()).train(norm.training)
        norm.__class__ = Folded  # in its own place: lists and closures may hold it as well
        norm.__dict__ = left.__dict__
    return wrapped


def _fold(layer: Any, norm: Any) -> None:
    """Weight and bias of both maps together, in the layer."""
    parts = [p for p in (layer.bias, norm.weight, norm.bias) if p is not None]
    weight_learns = any(p.requires_grad for p in (layer.weight, norm.weight) if p is not None)
    bias_learns = any(p.requires_grad for p in (layer.bias, norm.bias) if p is not None) if parts else weight_learns
    mean = norm.running_mean
    gamma = torch.ones_like(mean) if norm.weight is None else norm.weight
    beta = torch.zeros_like(mean) if norm.bias is None else norm.bias
    statistics = (mean, norm.running_var, norm.eps, gamma, beta)
    if isinstance(layer, nn.Linear):
        weight, bias = fusion.fuse_linear_bn_weights(layer.weight, layer.bias, *statistics)
    else:
        transposed = isinstance(layer, TRANSPOSED)
        weight, bias = fusion.fuse_conv_bn_weights(layer.weight, layer.bias, *statistics, transposed)
    layer.weight = nn.Parameter(weight.detach(), weight_learns)
    layer.bias = nn.Parameter(bias.detach(), bias_learns)


class _Tracer(torch.fx.Tracer):
    """Looks only into modules that have a BatchNorm inside, and rows of modules, whose last may stand before one; what
    the others do is their own affair."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if type(m) is nn.Sequential:
            return False
        return isinstance(m, BATCH_NORMS) or not any(isinstance(part, BATCH_NORMS) for part in m.modules())


def _is_norm(module: nn.Module) -> bool:
    """A BatchNorm of torch's, or timm's with an activation behind it, known by its name and its parts."""
    if isinstance(module, BATCH_NORMS) and type(module).__module__.startswith("torch.nn"):
        return True
    parts = [name for name, _ in module.named_children()]
    return isinstance(module, nn.BatchNorm2d) and (type(module).__name__, parts) == ("BatchNormAct2d", ["drop", "act"])


def _pairs(model: nn.Module) -> list[tuple[str, str]]:
    """(layer, BatchNorm) where the BatchNorm reads that layer's output and nothing else does."""
    modules = dict(model.named_modules())
    if not any(isinstance(m, BATCH_NORMS) for m in modules.values()):
        return []
    try:
        graph = _Tracer().trace(model)
    except Exception as error:
        raise ValueError(f"fold=True cannot follow the forward of {type(model).__name__}: {error}") from error
    pairs = []
    calls = [str(node.target) for node in graph.nodes if node.op == "call_module"]
    hidden = {part for name in calls for part in list(modules[name].modules())[1:]}  # called where nobody looks
    read = {str(node.target).rpartition(".")[0] for node in graph.nodes if node.op == "get_attr"}
    holders = Counter(p for module in modules.values() for p in module._parameters.values() if p is not None)
    for node in graph.nodes:
        if node.op != "call_module" or not _is_norm(modules[str(node.target)]):
            continue
        (before,) = node.all_input_nodes
        names = str(before.target), str(node.target)
        if (
            before.op == "call_module"
            and len(before.users) == 1
            and all(calls.count(name) == 1 and name not in read and modules[name] not in hidden for name in names)
            and all(holders[p] == 1 for name in names for p in modules[name].parameters(recurse=False))
            and _is_foldable(modules[names[0]], modules[names[1]])
        ):
            pairs.append(names)
    return pairs


def _is_foldable(layer: Any, norm: Any) -> bool:
    """One affine map after another, with nothing of the user's own before, between or behind."""
    if type(layer) not in (nn.Linear, *CONVS, *TRANSPOSED) or "forward" in vars(layer) or norm.running_mean is None:
        return False
    if isinstance(layer, TRANSPOSED) and layer.groups > 1:  # its weight has no axis with all output channels
        return False
    channels = layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels
    if channels != norm.num_features:  # it normalizes another dimension
        return False
    return not any(
        module._forward_hooks or module._forward_pre_hooks or hasattr(module, "parametrizations")
        for module in (layer, norm)
    )
