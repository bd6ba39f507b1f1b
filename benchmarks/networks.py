"""Networks that nobody chose: architecture, weights, data and quantization drawn from a seed."""

import math
from dataclasses import dataclass, replace
from random import Random

import torch
from torch import Tensor, nn

from qat_core import QATConfig, QuantSpec, calibrate, prepare
from qat_core.affine import to_groups
from qat_core.layers import quantized_layers

KINDS = ("powers of two", "powers of two", "free", "free", "weights only")  # in turn, by seed
WIDEST = 300
MULTIPLICATIONS = 300_000_000  # of one forward pass: tens of milliseconds
EXAMPLES = 16
FIRST_VARIED = 200  # seed: from here on layers differ in their widths of codes, and limits stand behind most of them
TILE = 32  # outputs that kernels compute at once: what is left over of a layer's is drawn in turn
LARGE_BATCH = 64


@dataclass(frozen=True)
class Drawn:
    """One network, prepared and calibrated.

    Attributes:
        kind: "powers of two" and "free" are what the scales of weights and activations are, "weights only" has float
            activations.
        description: layers, widths and specs in a line.
        model: prepared, calibrated.
        examples: what it was calibrated with, a batch.
        inputs: what it is asked, another and larger batch with a wider range.
    """

    kind: str
    description: str
    model: nn.Module
    examples: Tensor
    inputs: Tensor


def draw(seed: int, outputs: int) -> Drawn:
    """The network of that seed, with inputs for that many outputs or as many as the multiplications allow."""
    dice, kind, varied = Random(seed), KINDS[seed % len(KINDS)], seed >= FIRST_VARIED
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if varied:
            layers, shape = _varied(dice, seed)
        else:
            layers, shape = _cnn(dice) if dice.random() < 0.5 else _mlp(dice)
        net = nn.Sequential(*layers)
        _spread(net, dice)
        offset, spread = dice.choice([0.0, 0.0, dice.gauss(0, 2)]), math.exp(dice.uniform(-3, 3))

        def sample(batch: int, widened: float = 1.0) -> Tensor:
            return (torch.randn(batch, *shape) * widened + offset) * spread

        net.train()(sample(64))  # BatchNorm sees its statistics
        net.eval()
        config = _mixed(dice, kind, net) if varied else _config(dice, kind)
        model = calibrate(prepare(net, config, fold=True), [sample(64)])
        with torch.no_grad():
            each = model(sample(1)).numel()
        batch = max(
            LARGE_BATCH if varied else 2, min(-(-outputs // each), MULTIPLICATIONS // _multiplications(net, sample(1)))
        )
        return Drawn(kind, f"{_layers(net)}; {_specs(config)}", model, sample(EXAMPLES), sample(batch, 1.5))


def _mlp(dice: Random) -> tuple[list[nn.Module], tuple[int, ...]]:
    width = features = _width(dice)
    layers: list[nn.Module] = []
    depth = dice.randint(1, 6)
    for index in range(depth):
        before, width = width, _width(dice)
        layers.append(nn.Linear(before, width, bias=dice.random() < 0.7))
        if dice.random() < 0.3:
            layers.append(nn.BatchNorm1d(width))
        if index < depth - 1:
            layers.append(_activation(dice))
    return layers, (features,)


def _cnn(dice: Random) -> tuple[list[nn.Module], tuple[int, ...]]:
    """One or two dimensions; strides, groups, padding, pooling; with or without a linear head."""
    two = dice.random() < 0.75
    conv, norm, pool = (nn.Conv2d, nn.BatchNorm2d, nn.MaxPool2d) if two else (nn.Conv1d, nn.BatchNorm1d, nn.MaxPool1d)
    size = dice.randint(4, 12)
    width = dice.choice([1, 2, 3, 4, 8, 16])
    shape = (width, *[size] * (2 if two else 1))
    layers: list[nn.Module] = []
    depth = dice.randint(1, 6)
    head = depth > 1 and dice.random() < 0.5
    for index in range(depth - head):
        kernel, stride = dice.choice([1, 3, 3, 5]), dice.choice([1, 1, 1, 2])
        before, width, groups = width, _width(dice), 1
        if dice.random() < 0.2:  # depthwise
            width, groups = before * dice.choice([1, 1, 2]) if before <= WIDEST // 2 else before, before
        padding = kernel // 2 if size <= kernel or dice.random() < 0.8 else 0
        layers.append(conv(before, width, kernel, stride, padding, groups=groups, bias=dice.random() < 0.7))
        size = (size + 2 * padding - kernel) // stride + 1
        if dice.random() < 0.4:
            layers.append(norm(width))
        if index < depth - 1:
            layers.append(_activation(dice))
        if size >= 4 and dice.random() < 0.25:
            layers.append(pool(2))
            size //= 2
    if head:
        layers += [nn.Flatten(), nn.Linear(width * size ** (2 if two else 1), _width(dice), bias=dice.random() < 0.7)]
    return layers, shape


def _varied(dice: Random, seed: int) -> tuple[list[nn.Module], tuple[int, ...]]:
    """2 to 4 linear layers or 1x1 and 3x3 convolutions; the outputs of each modulo 32 follow from the seed."""
    size, width = dice.choice([0, 0, 6]), dice.randint(1, 100)
    shape = (width, size, size) if size else (width,)
    layers: list[nn.Module] = []
    for index in range(dice.randint(2, 4)):
        before, width = width, max(1, TILE * dice.randint(0, 1 if size else 4) + (seed + index) % TILE)
        kernel = dice.choice([1, 3])
        layers.append(nn.Conv2d(before, width, kernel, padding=kernel // 2) if size else nn.Linear(before, width))
        layers.append(dice.choice([nn.ReLU(), nn.ReLU6(), nn.Hardtanh(-1.5, 2.5), nn.Hardtanh(0, 3)]))
        if size and dice.random() < 0.3:
            layers.append(nn.MaxPool2d(3, 1, 1))
    return layers[: max(i for i, layer in enumerate(layers) if hasattr(layer, "weight")) + 1], shape


def _mixed(dice: Random, kind: str, net: nn.Sequential) -> QATConfig:
    """A config of its own for about every second layer."""
    others = {name: _config(dice, kind) for name, layer in net.named_children() if hasattr(layer, "weight")}
    return replace(_config(dice, kind), overrides={name: c for name, c in others.items() if dice.random() < 0.5})


def _width(dice: Random) -> int:
    """1 to 300, every order of magnitude as often as another."""
    return round(math.exp(dice.uniform(0, math.log(WIDEST))))


def _activation(dice: Random) -> nn.Module:
    return dice.choice([nn.ReLU, nn.ReLU, nn.ReLU, nn.ReLU6, nn.Hardtanh, nn.Identity])()


@torch.no_grad()
def _spread(net: nn.Module, dice: Random) -> None:
    """Weights of other sizes than their initial ones: outliers, channels of zeros, BatchNorms that do something."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.weight.uniform_(-1, 2)
            module.bias.normal_()
        elif isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d):
            module.weight *= math.exp(dice.gauss(0, 1))
            if dice.random() < 0.3:
                module.weight *= torch.where(torch.rand_like(module.weight) < 0.02, 8.0, 1.0)
            if dice.random() < 0.1:
                module.weight[dice.randrange(len(module.weight))] = 0
            if module.bias is not None:
                module.bias *= math.exp(dice.gauss(1, 1))


def _config(dice: Random, kind: str) -> QATConfig:
    powers = kind == "powers of two"
    bits = dice.choice([1.58, 2, 3, 4, 4, 8])
    half_shift = bits != 1.58 and dice.random() < 0.1
    weight = QuantSpec(
        bits=bits,
        granularity=dice.choice(["per_tensor", "per_channel", "per_group"]),
        group_size=dice.choice([3, 8, 16, 32, 100]),
        symmetric=half_shift or dice.random() < 0.8,
        half_shift=half_shift,
        scale=dice.choice(["minmax", "minmax", "mse", "learned"]),
        power_of_two=powers,
    )
    if kind == "weights only":
        return QATConfig(weight)
    activation = QuantSpec.activation(
        dice.choice([8, 8, 4]),
        symmetric=dice.random() < 0.25,
        scale=dice.choice(["minmax", "minmax", "mse", "learned"]),
        power_of_two=powers,
    )
    return QATConfig(weight, activation)


def _multiplications(net: nn.Module, x: Tensor) -> int:
    """Of one row."""
    count = 0
    for module in net:  # type: ignore[attr-defined]
        x = module(x)
        if isinstance(module, nn.Linear):
            count += module.weight.numel()
        elif isinstance(module, nn.Conv1d | nn.Conv2d):
            count += module.weight[0].numel() * x[0].numel()
    return count


def _layers(net: nn.Module) -> str:
    names = []
    for module in net.modules():
        if isinstance(module, nn.Linear):
            names.append(f"{module.in_features}-{module.out_features}")
        elif isinstance(module, nn.Conv1d | nn.Conv2d):
            groups = f"/{module.groups}" if module.groups > 1 else ""
            names.append(
                f"{module.in_channels}-{module.out_channels} conv {'x'.join(map(str, module.kernel_size))}{groups}"
            )
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            names[-1] += " BN"
    return ", ".join(names)


def _specs(config: QATConfig) -> str:
    mixed = "".join(f"; {name}: {_specs(other)}" for name, other in config.overrides.items() if other)
    return f"{config.weight}, {config.activation or 'float activations'}{mixed}"


def output_steps(converted: nn.Module) -> Tensor:
    """The unit in which the last layer of a converted network counts: (channels, 1, ...), broadcasts against outputs.

    Input scale x weight scale: the finest one where a channel has several, half of it on the half-shifted grid.
    """
    (*_, (_, last)) = quantized_layers(converted)
    assert last.input_quantizer is not None
    spec = last.weight_quantizer.spec
    scale, _ = last.weight_quantizer.source.qparams(last.weight)
    if spec.granularity == "per_group":  # (out, groups, 1); a group of zeros adds nothing and has the smallest scale
        is_used = to_groups(last.weight, spec).any(-1, keepdim=True)
        scale = torch.where(is_used, scale, scale.amax(1, keepdim=True)).amin(1)
    steps = last.input_quantizer.source.qparams(torch.empty(0))[0] * scale.flatten() * (0.5 if spec.half_shift else 1)
    return steps.reshape(-1, *[1] * (last.weight.dim() - 2))
