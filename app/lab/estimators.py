"""What the backward pass makes of round(): one small network, trained in three ways at once.

All three start from the same weights, see the same points and take the same optimizer steps. They differ in a single
function: how a weight is quantized, and with it what autograd sends back.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional as F

from app.lab.data import Sine
from app.lab.fit import TrainingDiverged, copy_tensors
from app.lab.models import mlp
from app.lab.threads import fix_threads
from qat_core import QATConfig, QuantSpec, STEQuantize, prepare
from qat_core.fake_quant import FakeQuantize
from qat_core.layers import quantized_layers
from qat_core.lsq import LSQuantize

WIDTH = 16
SEED = 5  # one with few neurons that are silent from the start
BITS = 4
NOISE = 0.1
STEPS = 400
LEARNING_RATE = 1e-2
LAYER = "2"  # the 16 x 16 matrix, whose gradients are shown
CURVE_POINTS = 64
FREE = ("weights", "biases", "scales")  # what may learn: the weights alone, the biases too, and the scales as well


def plain_quantize(x: Tensor, scale: Tensor, quant_min: int, quant_max: int) -> Tensor:
    """What anybody would write first, and autograd differentiates as it stands."""
    codes = torch.round(x / scale).clamp(quant_min, quant_max)
    return codes * scale


def straight_through(x: Tensor, scale: Tensor, quant_min: int, quant_max: int) -> Tensor:
    """The same numbers, with the gradient of the straight line."""
    estimator = LSQuantize if scale.requires_grad else STEQuantize
    return estimator.apply(x, scale, None, quant_min, quant_max)  # type: ignore[no-untyped-call, no-any-return]


def not_rounded(x: Tensor, scale: Tensor, quant_min: int, quant_max: int) -> Tensor:
    """No quantization at all: what the other two would like to be."""
    return x


Rule = Callable[[Tensor, Tensor, int, int], Tensor]
RULES: dict[str, Rule] = {"round": plain_quantize, "ste": straight_through, "none": not_rounded}


class RuledQuantize(FakeQuantize):
    """A layer's weight quantizer with another rule in the middle; the scale comes from where it came before."""

    def __init__(self, quantizer: FakeQuantize, rule: Rule) -> None:
        super().__init__(quantizer.spec, quantizer.source)
        self.rule = rule

    def with_scale(self, x: Tensor, at_least: Tensor | None = None) -> tuple[Tensor, Tensor]:
        scale, _ = self.source.qparams(x)
        return self.rule(x, scale, self.spec.quant_min, self.spec.quant_max), scale


@dataclass(frozen=True)
class Still:
    """Of one kind of parameter: how many there are, how many have a gradient of exactly 0, how many ever moved."""

    count: int
    zero: int
    moved: int


@dataclass(frozen=True)
class RuleRecord:
    """One of the three networks after some steps.

    Attributes:
        loss: mean squared error on the noisy points.
        curve: its output on CURVE_POINTS points, evenly spaced.
        gradient: of the loss with respect to the latent weights of LAYER, (out, in).
        still: kind of parameter ("weights", "biases", "scales") -> what stands still.
    """

    loss: float
    curve: list[float]
    gradient: Tensor
    still: dict[str, Still]


class Estimators:
    """The three networks in training: Adam, full batch, cosine decay to 0."""

    def __init__(self, free: str = "weights") -> None:
        if free not in FREE:
            raise ValueError(f"free={free!r}; expected one of {', '.join(FREE)}")
        fix_threads()
        self.free, self.step = free, 0
        self.data = Sine.sample(NOISE)
        scale = "learned" if free == "scales" else "minmax"
        config = QATConfig(QuantSpec(BITS, "per_tensor", scale=scale))  # type: ignore[arg-type]
        self.models = {name: _ruled(prepare(mlp(WIDTH, SEED), config), rule, free) for name, rule in RULES.items()}
        self.optimizers = {
            name: torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=LEARNING_RATE)
            for name, model in self.models.items()
        }
        self._first = {name: copy_tensors(dict(model.named_parameters())) for name, model in self.models.items()}

    def run(self, every: int = 10, until: int = STEPS) -> Iterator[dict[str, RuleRecord]]:
        """Train to step `until`, and yield a record of each network every `every` steps and at the last.

        Raises:
            TrainingDiverged: a loss is no longer finite.
        """
        while self.step < min(until, STEPS):
            rate = LEARNING_RATE * (1 + math.cos(math.pi * self.step / STEPS)) / 2
            for name, optimizer in self.optimizers.items():
                optimizer.param_groups[0]["lr"] = rate
                if not math.isfinite(self._backward(name)):
                    raise TrainingDiverged(f"training stopped at step {self.step}: the loss of {name!r} is not finite")
                optimizer.step()
            self.step += 1
            if self.step % every == 0 or self.step == min(until, STEPS):
                yield self.record()

    def record(self) -> dict[str, RuleRecord]:
        """The three networks as they are now, with the gradients that the next step would use."""
        return {name: self._record(name) for name in self.models}

    def snapshot(self) -> dict[str, Any]:
        """All that a later `restore` needs, as numbers and tensors of its own."""
        return {
            "free": self.free,
            "step": self.step,
            "models": {name: copy_tensors(model.state_dict()) for name, model in self.models.items()},
            "optimizers": {name: copy_tensors(optimizer.state_dict()) for name, optimizer in self.optimizers.items()},
        }

    @classmethod
    def restore(cls, snapshot: dict[str, Any]) -> "Estimators":
        """As it was when `snapshot` was taken."""
        estimators = cls(snapshot["free"])
        estimators.step = snapshot["step"]
        for name, model in estimators.models.items():
            model.load_state_dict(snapshot["models"][name])
            estimators.optimizers[name].load_state_dict(copy_tensors(snapshot["optimizers"][name]))
        return estimators

    def _backward(self, name: str) -> float:
        fix_threads()
        model = self.models[name]
        model.zero_grad()
        loss = F.mse_loss(model(self.data.x), self.data.y)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.item()

    def _record(self, name: str) -> RuleRecord:
        model, loss = self.models[name], self._backward(name)
        with torch.no_grad():
            curve = model(torch.linspace(-math.pi, math.pi, CURVE_POINTS).unsqueeze(1)).flatten().tolist()
        parameters = dict(model.named_parameters())
        still = {}
        for kind, ending in (("weights", "weight"), ("biases", "bias"), ("scales", "log2_growth")):
            mine = {n: p for n, p in parameters.items() if n.endswith(ending)}
            still[kind] = Still(
                count=sum(p.numel() for p in mine.values()),
                zero=sum(p.numel() if p.grad is None else int((p.grad == 0).sum()) for p in mine.values()),
                moved=sum(int((p != self._first[name][n]).sum()) for n, p in mine.items()),
            )
        gradient = parameters[f"{LAYER}.weight"].grad
        assert gradient is not None
        return RuleRecord(loss, curve, gradient.clone(), still)


@dataclass(frozen=True)
class Slice:
    """The loss of the network with plain rounding along one latent weight; all others, and the scale, stay.

    Attributes:
        row, col, weight, scale: of the weight, which stands at `weight`.
        loss: of the network as it is.
        at: latent values, two stairs and a half to either side.
        rounded, smooth: the loss at each of them with and without rounding this one weight.
        true_slope: what autograd finds at the latent weight.
        ste_slope: what the straight-through estimator takes instead: the slope of `smooth` at the rounded weight.
        widths: half widths h of finite differences.
        below, above: the rounded network's loss at weight - h and weight + h.
    """

    row: int
    col: int
    weight: float
    scale: float
    loss: float
    at: Tensor
    rounded: Tensor
    smooth: Tensor
    true_slope: float
    ste_slope: float
    widths: Tensor
    below: Tensor
    above: Tensor

    @property
    def differences(self) -> Tensor:
        """The slope that each width sees."""
        return (self.above - self.below) / (2 * self.widths)


def slice_along(estimators: Estimators, row: int | None = None, col: int | None = None) -> Slice:
    """Cut through the loss along a weight of LAYER; by default the one on which the loss depends most.

    Raises:
        ValueError: there is no such weight.
    """
    fix_threads()
    model, data = estimators.models["round"], estimators.data
    layers = dict(quantized_layers(model))
    grids = {
        f"{name}.weight": layer.weight_quantizer(layer.latent("weight")).detach() for name, layer in layers.items()
    }
    values = {**copy_tensors(dict(model.named_parameters())), **grids}
    fp32, name = mlp(WIDTH, SEED), f"{LAYER}.weight"
    values = {key: values[key] for key, _ in fp32.named_parameters()}

    free = values[name].clone().requires_grad_()
    loss = F.mse_loss(functional_call(fp32, {**values, name: free}, (data.x,)), data.y)
    (slopes,) = torch.autograd.grad(loss, free)
    latent = layers[LAYER].latent("weight")
    (true_slopes,) = torch.autograd.grad(F.mse_loss(model(data.x), data.y), latent)
    if row is None or col is None:
        row, col = divmod(int(slopes.abs().argmax()), WIDTH)
    if not (0 <= row < WIDTH and 0 <= col < WIDTH):
        raise ValueError(f"row={row}, col={col}; expected whole numbers from 0 to {WIDTH - 1}")

    quantizer = layers[LAYER].weight_quantizer
    weight = latent.detach()[row, col]
    scale = quantizer.source.qparams(latent)[0].detach()
    spec = quantizer.spec

    def losses(entries: Tensor) -> Tensor:
        def one(entry: Tensor) -> Tensor:
            matrix = torch.where(mask, entry, values[name])
            return F.mse_loss(functional_call(fp32, {**values, name: matrix}, (data.x,)), data.y)

        mask = torch.zeros(WIDTH, WIDTH, dtype=torch.bool)
        mask[row, col] = True
        return vmap(one)(entries)

    def rounded(entries: Tensor) -> Tensor:
        return losses(plain_quantize(entries, scale, spec.quant_min, spec.quant_max))

    with torch.no_grad():
        at = weight + scale * torch.linspace(-2.5, 2.5, 161)
        widths = scale * torch.logspace(-2, math.log10(2.5), 60)
        return Slice(
            row=row,
            col=col,
            weight=weight.item(),
            scale=scale.item(),
            loss=loss.item(),
            at=at,
            rounded=rounded(at),
            smooth=losses(at),
            true_slope=true_slopes[row, col].item(),
            ste_slope=slopes[row, col].item(),
            widths=widths,
            below=rounded(weight - widths),
            above=rounded(weight + widths),
        )


def _ruled(model: nn.Module, rule: Rule, free: str) -> nn.Module:
    for _, layer in quantized_layers(model):
        layer.weight_quantizer = RuledQuantize(layer.weight_quantizer, rule)
        assert layer.bias is not None
        layer.bias.requires_grad_(free != "weights")
    return model
