"""A traced step is the ordinary step, and every number of it is what some other way of computing it gives."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from app.lab.fit import Experiment, Settings, TrainingDiverged
from app.lab.trace import StepTrace, trace_step, traceable
from qat_core.layers import quantized_layers
from qat_core.lsq import RATE
from tests.app.same import assert_same

CASES: tuple[dict[str, Any], ...] = (
    {"granularity": "per_tensor"},
    {"granularity": "per_channel", "bits": 2},
    {"granularity": "per_group"},
    {"scale": "mse"},
    {"scale": "learned"},
    {"scale": "learned", "granularity": "per_channel", "bits": 3},
    {"scale": "learned", "activation_bits": 8},
)
ACTIVATIONS_IN_FLOAT = CASES[:-1]  # rounded activations have no slope either
LAYERS = ("0", "2", "4")
ULP = 2.0**-23
AT = 30  # steps taken before the traced one: enough for weights to be clamped where scales are learned


def in_words(case: dict[str, Any]) -> str:
    return " ".join(map(str, case.values()))


@pytest.fixture(scope="module", params=CASES, ids=in_words)
def started(request: pytest.FixtureRequest) -> dict[str, Any]:
    """An experiment in mid-training, as a snapshot."""
    experiment = Experiment(Settings(**request.param), "cpu")
    list(experiment.run(until=AT))
    return experiment.snapshot()


def restored(snapshot: dict[str, Any]) -> Experiment:
    return Experiment.restore(snapshot, "cpu")


@pytest.fixture(scope="module", params=LAYERS)
def layer(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def trace(started: dict[str, Any], layer: str) -> StepTrace:
    return trace_step(restored(started), layer)


# --- the step is the ordinary one -----------------------------------------------------------------


def test_the_traced_step_leaves_what_any_other_would(started: dict[str, Any], layer: str) -> None:
    traced, ordinary = restored(started), restored(started)
    trace_step(traced, layer)
    next(ordinary.run(until=AT + 1))
    assert_same(traced.snapshot(), ordinary.snapshot() | {"codes": traced.snapshot()["codes"]})
    assert next(traced.run(until=AT + 2)).mse_train == next(ordinary.run(until=AT + 2)).mse_train


def test_tracing_leaves_nothing_behind(started: dict[str, Any]) -> None:
    experiment = restored(started)
    module = traceable(experiment.models["qat"])["2"]
    before = [set(vars(owner)) for owner in (module, module.weight_quantizer, experiment.task)]
    trace_step(experiment, "2")
    assert [set(vars(owner)) for owner in (module, module.weight_quantizer, experiment.task)] == before


def test_the_next_step_begins_where_this_one_ends(started: dict[str, Any], layer: str) -> None:
    experiment = restored(started)
    first, second = trace_step(experiment, layer), trace_step(experiment, layer)
    assert (first.step, second.step) == (AT, AT + 1)
    assert torch.equal(first.weight.after, second.weight.before)
    assert torch.equal(first.scale_after, second.scale)
    assert torch.equal(first.codes_after, second.codes)
    assert torch.equal(first.weight.exp_avg, second.weight.exp_avg_before)
    assert torch.equal(first.flips, first.codes != second.codes)


# --- forward --------------------------------------------------------------------------------------


def test_the_weight_goes_through_the_stages_to_the_layer(started: dict[str, Any], layer: str, trace: StepTrace) -> None:
    module = traceable(restored(started).models["qat"])[layer]
    assert torch.equal(trace.weight.before, module.weight)
    assert torch.equal(trace.codes, module.weight_quantizer.codes(module.weight).float())
    assert torch.equal(trace.scaled, trace.weight.before / trace.scale)
    assert torch.equal(trace.unclamped, torch.round(trace.scaled))
    assert torch.equal(trace.codes, torch.round(trace.scaled).clamp(trace.spec.quant_min, trace.spec.quant_max))
    assert torch.equal(trace.quantized, trace.codes * trace.scale)
    assert torch.equal(trace.quantized, module.weight_quantizer(module.weight))
    assert torch.equal(trace.clamped, trace.codes * trace.scale != torch.round(trace.scaled) * trace.scale)


def test_what_the_layer_and_the_network_answered(started: dict[str, Any], layer: str, trace: StepTrace) -> None:
    experiment = restored(started)
    model, task = experiment.models["qat"], experiment.task
    module = traceable(model)[layer]
    seen: list[tuple[Tensor, Tensor]] = []
    module.register_forward_hook(lambda _, args, output: seen.append((args[0].detach(), output.detach())))
    prediction = model(task.x)
    assert torch.equal(trace.prediction, prediction)
    assert torch.equal(trace.input, seen[0][0])
    assert torch.equal(trace.output, seen[0][1])
    if module.input_quantizer is None:
        assert torch.equal(trace.output, F.linear(trace.input, trace.quantized, module.bias))
    assert trace.loss == F.mse_loss(prediction, task.data.y).item()  # type: ignore[attr-defined]


# --- backward -------------------------------------------------------------------------------------


@pytest.mark.parametrize("started", ACTIVATIONS_IN_FLOAT, ids=in_words, indirect=True)
def test_the_gradients_are_those_of_a_float_network_with_the_quantized_weights(
    started: dict[str, Any], layer: str, trace: StepTrace
) -> None:
    experiment = restored(started)
    weights, loss = float_twin(experiment, torch.float32)
    value, prediction = loss(weights)
    value.backward()
    assert torch.equal(trace.grad_quantized, weights[f"{layer}.weight"].grad)  # type: ignore[arg-type]
    assert torch.allclose(trace.grad_quantized, trace.grad_output.T @ trace.input, rtol=1e-4, atol=1e-7)
    expected = 2 * (prediction - experiment.task.data.y) / len(prediction)  # type: ignore[attr-defined]
    assert torch.allclose(trace.grad_prediction, expected, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("started", ACTIVATIONS_IN_FLOAT, ids=in_words, indirect=True)
def test_the_gradient_at_the_quantized_weight_is_a_finite_difference(
    started: dict[str, Any], layer: str, trace: StepTrace
) -> None:
    experiment = restored(started)
    weights, loss = float_twin(experiment, torch.float64)
    name, h = f"{layer}.weight", 1e-6
    row, col = divmod(int(trace.grad_quantized.abs().argmax()), trace.grad_quantized.shape[1])
    with torch.no_grad():
        weights[name][row, col] += h
        above = loss(weights)[0]
        weights[name][row, col] -= 2 * h
        below = loss(weights)[0]
    slope = (above - below).item() / (2 * h)
    assert slope == pytest.approx(trace.grad_quantized[row, col].item(), rel=1e-3)


def test_the_estimator_passes_the_gradient_or_blocks_it(trace: StepTrace) -> None:
    assert torch.equal(trace.passes, ~trace.clamped)
    assert torch.equal(trace.weight.grad, torch.where(trace.clamped, 0.0, trace.grad_quantized))
    if trace.spec.scale == "minmax":
        assert bool(trace.passes.all())


def test_learned_scales_clamp_some_weights_and_block_their_gradient() -> None:
    experiment = Experiment(Settings(scale="learned"), "cpu")
    list(experiment.run(until=AT))
    trace = trace_step(experiment, "2")
    blocked = trace.clamped & (trace.grad_quantized != 0)
    assert blocked.any()
    assert (trace.weight.grad[blocked] == 0).all()
    assert (trace.weight.grad[~trace.clamped] == trace.grad_quantized[~trace.clamped]).all()


def test_the_gradient_of_a_learned_scale(trace: StepTrace) -> None:
    if trace.spec.scale != "learned":
        assert trace.grad_scale is None
        assert trace.log2_scale is None
        return
    assert trace.grad_scale is not None
    assert trace.log2_scale is not None
    # The straight-through estimator as a detached difference, which autograd then differentiates by itself.
    scale = trace.log2_scale.exp2()
    if trace.spec.power_of_two:
        scale = trace.log2_scale.ceil().exp2()
    scale = scale.double().requires_grad_()
    v = trace.weight.before.double() / scale
    y = scale * torch.where(trace.passes, v + (trace.codes - v).detach(), trace.codes.double())
    (expected,) = torch.autograd.grad(y, scale, trace.grad_quantized.double())
    elements = v.numel() // scale.numel()
    expected = expected / math.sqrt(elements * trace.spec.quant_max)
    assert torch.allclose(trace.grad_scale.double(), expected, rtol=1e-3, atol=1e-6)
    summed = (trace.grad_quantized * trace.scale_slopes).sum_to_size(scale.shape) * trace.scale_factor
    assert torch.allclose(summed, trace.grad_scale, rtol=1e-3, atol=1e-6)
    by_rule = trace.grad_scale * scale.detach().float() * math.log(2) * RATE
    assert torch.allclose(trace.log2_growth.grad, by_rule, rtol=1e-5, atol=1e-9)


# --- update ---------------------------------------------------------------------------------------


def test_adam_does_what_it_does_alone(started: dict[str, Any], layer: str) -> None:
    """The same gradients given to an Adam of one parameter, from its beginning."""
    experiment = Experiment(started["settings"], "cpu")
    alone: dict[str, tuple[Tensor, torch.optim.Adam]] = {}
    for _ in range(3):
        trace = trace_step(experiment, layer)
        for name in ("weight", "log2_growth"):
            update = getattr(trace, name)
            if update is None:
                continue
            if name not in alone:
                parameter = nn.Parameter(update.before.clone())
                alone[name] = parameter, torch.optim.Adam([parameter])
                assert not update.exp_avg_before.any()
                assert not update.exp_avg_sq_before.any()
            parameter, adam = alone[name]
            adam.param_groups[0]["lr"] = update.lr
            parameter.grad = update.grad.clone()
            adam.step()
            state = adam.state[parameter]
            assert (state["step"], adam.defaults["betas"], adam.defaults["eps"]) == (
                update.step,
                update.betas,
                update.eps,
            )
            assert torch.equal(update.exp_avg, state["exp_avg"])
            assert torch.equal(update.exp_avg_sq, state["exp_avg_sq"])
            assert torch.equal(update.after, parameter)


def test_the_change_is_adams_formula(trace: StepTrace) -> None:
    for update in filter(None, (trace.weight, trace.log2_growth)):
        m = 0.9 * update.exp_avg_before.double() + 0.1 * update.grad.double()
        v = 0.999 * update.exp_avg_sq_before.double() + 0.001 * update.grad.double() ** 2
        m_hat, v_hat = m / (1 - 0.9**update.step), v / (1 - 0.999**update.step)
        rate = 1e-2 * (1 + math.cos(math.pi * AT / 2000)) / 2
        change = -rate * m_hat / (v_hat.sqrt() + 1e-8)
        assert update.step == AT + 1
        assert update.lr == rate
        # In float32 each of a few operations is off by at most ULP of its result, and where the two parts of m cancel
        # each other, by as much of the parts.
        parts = (0.9 * update.exp_avg_before.abs() + 0.1 * update.grad.abs()).double() / (1 - 0.9**update.step)
        lost = 8 * ULP * (change.abs() + rate * parts / (v_hat.sqrt() + 1e-8))
        assert ((update.change.double() - change).abs() <= lost).all()
        after = update.before.double() + change
        assert ((update.after.double() - after).abs() <= lost + ULP * after.abs()).all()


# --- what cannot be traced ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["1", "", "weight", "2.weight_quantizer"])
def test_a_layer_that_is_not_there_is_named(name: str) -> None:
    with pytest.raises(ValueError, match=rf"layer='{name}'; expected one of 0, 2, 4"):
        trace_step(Experiment(Settings(), "cpu"), name)


def test_a_layer_that_still_trains_in_float_has_nothing_to_show() -> None:
    experiment = Experiment(Settings.of("digits"), "cpu")
    name = list(traceable(experiment.models["qat"]))[-1]
    with pytest.raises(ValueError, match=rf"layer '{name}' still trains in float at step 0"):
        trace_step(experiment, name)


def test_a_diverging_step_is_reported_and_leaves_nothing_behind() -> None:
    experiment = Experiment(Settings(learning_rate=1e20), "cpu")
    module = traceable(experiment.models["qat"])["2"]
    before = set(vars(module))
    trace_step(experiment, "2")
    with pytest.raises(TrainingDiverged, match="stopped at step 2"):
        trace_step(experiment, "2")
    assert set(vars(module)) == before


def float_twin(experiment: Experiment, dtype: torch.dtype) -> tuple[dict[str, Tensor], Any]:
    """The FP32 architecture with the quantized weights in it, as free parameters; and its loss as a function."""
    model, task = experiment.models["qat"], experiment.task
    parameters = {name: value.detach().clone().to(dtype) for name, value in model.named_parameters()}
    for name, module in quantized_layers(model):
        parameters[f"{name}.weight"] = module.weight_quantizer(module.weight).detach().to(dtype)
    fp32 = experiment.models["fp32"]
    weights = {name: parameters[name].requires_grad_() for name, _ in fp32.named_parameters()}

    def loss(values: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        prediction = functional_call(fp32, values, (task.x.to(dtype),))
        return F.mse_loss(prediction, task.data.y.to(dtype)), prediction.detach()  # type: ignore[attr-defined]

    return weights, loss
