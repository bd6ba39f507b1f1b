"""One optimizer step of the QAT network, taken apart.

The step is the experiment's own: hooks copy what passes by and change nothing, so a traced step leaves the same weights
as any other, bit for bit. What happens inside of the quantizer, between the latent weight and the quantized one, is
asked of the functions in qat_core that the quantizer itself calls.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from app.lab.fit import Experiment
from qat_core.affine import from_groups, quantize, round_to_codes, to_groups
from qat_core.fake_quant import FakeQuantize
from qat_core.layers import QuantLinear, quantized_layers
from qat_core.lsq import RATE, LearnedScale, gradient_factor
from qat_core.spec import QuantSpec
from qat_core.ste import where_not_clamped


@dataclass(frozen=True)
class Update:
    """What Adam did to one parameter; every tensor has the parameter's shape.

    Attributes:
        before, after: the parameter.
        grad: of the loss.
        exp_avg_before, exp_avg: the moving average of the gradient.
        exp_avg_sq_before, exp_avg_sq: the moving average of its square.
        step: how many gradients the averages have seen.
        lr, betas, eps: the settings of this step.

    Source: Kingma and Ba 2015, "Adam: A Method for Stochastic Optimization", algorithm 1.
    """

    before: Tensor
    after: Tensor
    grad: Tensor
    exp_avg_before: Tensor
    exp_avg: Tensor
    exp_avg_sq_before: Tensor
    exp_avg_sq: Tensor
    step: int
    lr: float
    betas: tuple[float, float]
    eps: float

    @property
    def corrected_avg(self) -> Tensor:
        """The average without its bias towards the zero that it began with."""
        return self.exp_avg / (1 - self.betas[0] ** self.step)

    @property
    def corrected_avg_sq(self) -> Tensor:
        return self.exp_avg_sq / (1 - self.betas[1] ** self.step)

    @property
    def change(self) -> Tensor:
        """after - before, before it is rounded to float32."""
        return -self.lr * self.corrected_avg / (self.corrected_avg_sq.sqrt() + self.eps)


@dataclass(frozen=True)
class StepTrace:
    """One layer in one optimizer step, in the order in which things happen; copies on the CPU.

    Attributes:
        layer: its name in the model.
        step: optimizer steps taken before this one.
        spec: how the weight is quantized.
        weight: the update of the latent weight (out, in).
        scale: of each weight, (out, in).
        scaled: weight / scale, (out, in).
        unclamped, codes: the integer of each weight before and after the clamp, (out, in).
        quantized: what the layer multiplies with, (out, in).
        input, output: of the layer, (batch, in) and (batch, out).
        prediction, loss: of the network.
        grad_prediction, grad_output, grad_quantized: of the loss, in each one's shape.
        passes: True where the straight-through estimator lets the gradient through, (out, in).
        log2_growth: the update of the learned scale's parameter; None where scales are measured.
        log2_scale, log2_scale_after: of the learned scale before and after the step, in its own shape; else None.
        grad_scale: of the loss with respect to the learned scale itself, in its own shape; else None.
        scale_after, codes_after: of each weight when the step is done, (out, in).
    """

    layer: str
    step: int
    spec: QuantSpec
    weight: Update
    scale: Tensor
    scaled: Tensor
    unclamped: Tensor
    codes: Tensor
    quantized: Tensor
    input: Tensor
    output: Tensor
    prediction: Tensor
    loss: float
    grad_prediction: Tensor
    grad_output: Tensor
    grad_quantized: Tensor
    passes: Tensor
    log2_growth: Update | None
    log2_scale: Tensor | None
    log2_scale_after: Tensor | None
    grad_scale: Tensor | None
    scale_after: Tensor
    codes_after: Tensor

    @property
    def clamped(self) -> Tensor:
        """Which weights lie beyond the last code, (out, in)."""
        return self.unclamped != self.codes

    @property
    def flips(self) -> Tensor:
        """Which codes this step changes, (out, in)."""
        return self.codes != self.codes_after

    @property
    def scale_slopes(self) -> Tensor:
        """dy/ds of each weight, as `lsq.py` has it: the rounding error, or the limit's code; (out, in)."""
        return torch.where(self.passes, self.codes - self.scaled, self.codes)

    @property
    def scale_factor(self) -> float:
        """What a learned scale's gradient is multiplied by."""
        assert self.grad_scale is not None
        return gradient_factor(self.scaled.numel() // self.grad_scale.numel(), self.spec.quant_max)


def trace_step(experiment: Experiment, layer: str) -> StepTrace:
    """Take the experiment's next optimizer step and note what happens to one layer.

    Raises:
        ValueError: the QAT network has no such linear layer, or still trains in float.
        TrainingDiverged: as in `Experiment.run`.
    """
    model, optimizer = experiment.models["qat"], experiment.optimizers["qat"]
    layers = traceable(model)
    if layer not in layers:
        raise ValueError(f"layer={layer!r}; expected one of {', '.join(layers)}")
    module, quantizer = layers[layer], layers[layer].weight_quantizer
    if not quantizer.enabled:
        raise ValueError(f"layer {layer!r} still trains in float at step {experiment.step}: nothing is rounded yet")
    parameters = {"weight": module.weight}
    learned = isinstance(quantizer.source, LearnedScale)
    if learned:
        parameters["log2_growth"] = quantizer.source.log2_growth
    before = {name: _adam(optimizer, parameter) for name, parameter in parameters.items()}
    step = experiment.step

    with (
        _heard(module, "forward") as layer_calls,
        _heard(model, "forward") as model_calls,
        _heard(quantizer, "with_scale") as quantizer_calls,
        _heard(experiment.task, "loss") as losses,
    ):
        experiment._optimize()

    (layer_input,), output = layer_calls[0]
    _, prediction = model_calls[0]
    _, (quantized, scale) = quantizer_calls[0]
    _, loss = losses[-1]  # the FP32 network's comes first
    updates = {name: _update(optimizer, parameters[name], *before[name]) for name in parameters}

    spec, latent = quantizer.spec, updates["weight"].before
    scales = _of_each(scale, latent, spec)
    unclamped = round_to_codes(latent, scales, None)
    return StepTrace(
        layer=layer,
        step=step,
        spec=spec,
        weight=updates["weight"],
        scale=scales,
        scaled=latent / scales,
        unclamped=unclamped,
        codes=quantize(latent, scales, None, spec.quant_min, spec.quant_max),
        quantized=_copy(quantized),
        input=_copy(layer_input),
        output=_copy(output),
        prediction=_copy(prediction),
        loss=loss.item(),
        grad_prediction=_grad(prediction),
        grad_output=_grad(output),
        grad_quantized=_grad(quantized),
        passes=where_not_clamped(torch.ones_like(latent), unclamped, spec.quant_min, spec.quant_max).bool(),
        log2_growth=updates.get("log2_growth"),
        log2_scale=_log2_scale(quantizer, latent, updates["log2_growth"].before) if learned else None,
        log2_scale_after=_log2_scale(quantizer, module.weight, updates["log2_growth"].after) if learned else None,
        grad_scale=_grad(scale) if "log2_growth" in updates else None,
        scale_after=_of_each(quantizer.source.qparams(to_groups(module.weight, spec))[0], latent, spec),
        codes_after=quantizer.codes(module.weight).cpu().float(),
    )


def traceable(model: nn.Module) -> dict[str, QuantLinear]:
    """The layers that `trace_step` knows: those whose weight is a matrix."""
    return {name: layer for name, layer in quantized_layers(model) if isinstance(layer, QuantLinear)}


@contextmanager
def _heard(owner: Any, method: str) -> Iterator[list[tuple[tuple[Any, ...], Any]]]:
    """Arguments and result of every call meanwhile; tensors in the result keep their gradient.

    A module's own hooks would miss `with_scale`, and the loss belongs to no module.
    """
    original = getattr(owner, method)
    calls: list[tuple[tuple[Any, ...], Any]] = []

    def listen(*args: Any) -> Any:
        result = original(*args)
        for tensor in result if isinstance(result, tuple) else (result,):
            if tensor.requires_grad:
                tensor.retain_grad()
        calls.append((args, result))
        return result

    setattr(owner, method, listen)
    try:
        yield calls
    finally:
        delattr(owner, method)


def _adam(optimizer: torch.optim.Optimizer, parameter: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The parameter and Adam's two averages, which begin at 0."""
    state = optimizer.state.get(parameter, {})
    averages = (state.get(name, torch.zeros_like(parameter)) for name in ("exp_avg", "exp_avg_sq"))
    first, second = (_copy(average) for average in averages)
    return _copy(parameter), first, second


def _update(
    optimizer: torch.optim.Optimizer, parameter: Tensor, before: Tensor, exp_avg: Tensor, exp_avg_sq: Tensor
) -> Update:
    after, new_exp_avg, new_exp_avg_sq = _adam(optimizer, parameter)
    group = optimizer.param_groups[0]
    return Update(
        before=before,
        after=after,
        grad=_grad(parameter),
        exp_avg_before=exp_avg,
        exp_avg=new_exp_avg,
        exp_avg_sq_before=exp_avg_sq,
        exp_avg_sq=new_exp_avg_sq,
        step=int(optimizer.state[parameter]["step"]),
        lr=group["lr"],
        betas=group["betas"],
        eps=group["eps"],
    )


def _log2_scale(quantizer: FakeQuantize, weight: Tensor, log2_growth: Tensor) -> Tensor:
    """Of a learned scale, before it is rounded to a power of two."""
    source, groups = quantizer.source, to_groups(_copy(weight), quantizer.spec)
    assert isinstance(source, LearnedScale)
    return source.log2_begin(groups, _copy(source.begin)).add(log2_growth, alpha=RATE)


def _of_each(scale: Tensor, weight: Tensor, spec: QuantSpec) -> Tensor:
    """The scale of every single weight."""
    groups = to_groups(weight, spec)
    return from_groups(_copy(scale).expand_as(groups), weight.shape)


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().clone()


def _grad(tensor: Tensor) -> Tensor:
    assert tensor.grad is not None
    return _copy(tensor.grad)
