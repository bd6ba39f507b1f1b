"""When quantization and observers switch."""

import copy

import pytest
import torch
from torch import nn

from qat_core import Oscillations, QATConfig, QuantSpec, Schedule, annealed_threshold, calibrate, prepare
from qat_core.observer import MovingRange
from tests.qat_core.test_state import adam, config, network, train


def test_quantization_sets_in_after_the_steps_asked_for():
    torch.manual_seed(0)
    model, x = nn.Linear(6, 3), torch.randn(4, 6)
    prepared = prepare(model, QATConfig(QuantSpec(bits=2), QuantSpec.activation(2)))
    schedule = Schedule(prepared, quantize_after=2)
    for _ in range(2):
        assert torch.equal(prepared(x), model(x))
        schedule.step()
    assert not torch.equal(prepared(x), model(x))
    assert prepared.input_quantizer.source.high.item() == x.max().item()  # watched from the start


def test_calibration_counts_while_quantization_is_off():
    model = prepare(nn.Linear(2, 1), QATConfig(activation=QuantSpec.activation()))
    schedule = Schedule(model, quantize_after=1)
    calibrate(model, [torch.tensor([[-1.0, 2.0]])])
    schedule.step()
    assert model.eval()(torch.ones(1, 2)).isfinite()


@pytest.mark.parametrize("aid", [Schedule, Oscillations])
def test_a_model_that_was_not_prepared_is_refused(aid):
    with pytest.raises(ValueError, match="Linear was not prepared"):
        aid(nn.Linear(2, 1))


def test_learned_scales_begin_when_quantization_sets_in():
    prepared = prepare(nn.Linear(6, 3), QATConfig(QuantSpec(scale="learned"), QuantSpec.activation(scale="learned")))
    schedule = Schedule(prepared, quantize_after=1)
    prepared(torch.randn(4, 6))
    with torch.no_grad():
        prepared.weight.mul_(64)
    schedule.step()
    prepared(100 * torch.randn(4, 6))
    fresh = prepare(nn.Linear(6, 3), QATConfig(QuantSpec(scale="learned")))
    fresh.weight.data.copy_(prepared.weight)
    fresh.weight_quantizer.source.restart()
    assert torch.equal(prepared.weight_quantizer(prepared.weight), fresh.weight_quantizer(fresh.weight))
    assert prepared.input_quantizer.source.qparams(torch.empty(0))[0].item() > 1


def test_observers_stay_after_the_steps_asked_for():
    prepared = prepare(nn.Linear(1, 1), QATConfig(activation=QuantSpec.activation(8)))
    schedule = Schedule(prepared, freeze_observers_after=1)
    prepared(torch.tensor([[1.0]]))
    schedule.step()
    prepared(torch.tensor([[50.0]]))
    assert prepared.input_quantizer.source.high.item() == 1


@pytest.mark.parametrize("arguments", [{"quantize_after": -1}, {"freeze_observers_after": 1.5}])
def test_steps_are_whole_numbers(arguments):
    with pytest.raises(ValueError, match="expected a whole number of steps"):
        Schedule(prepare(nn.Linear(1, 1)), **arguments)


def test_observers_freeze_and_go_on():
    model = prepare(network(), config("minmax"))
    train(model, adam(model), range(3))
    schedule = Schedule(model, freeze_observers_after=0)
    before = {n: b.clone() for n, b in model.named_buffers()}
    train(model, adam(model), range(3, 6))
    assert all(torch.equal(b, before[n]) for n, b in model.named_buffers())
    schedule.freeze_observers_after = None
    schedule.step()
    train(model, adam(model), range(3, 6))
    for name, module in model.named_modules():
        if isinstance(module, MovingRange):
            assert not torch.equal(module.high, before[f"{name}.high"])


def test_over_a_training_a_part_is_in_float_and_the_rest_held():
    """Against a loop that writes the recipe out: scales that begin anew, a tracker that begins then, its threshold
    that of the whole training."""
    steps, in_float = 60, 15

    def start():
        torch.manual_seed(0)
        model = prepare(
            nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1)), QATConfig(QuantSpec(2, scale="learned"))
        )
        return model, torch.optim.Adam(model.parameters(), lr=0.05)

    def train(model, optimizer, number):
        x = torch.randn(16, 3, generator=torch.Generator().manual_seed(number))
        optimizer.zero_grad()
        (model(x) - x.sum(1, keepdim=True).sin()).square().mean().backward()
        optimizer.step()

    recipe, optimizer = start()
    schedule = Schedule.over(recipe, steps)
    for number in range(steps):
        assert recipe[0].weight_quantizer.enabled == (number >= in_float)
        train(recipe, optimizer, number)
        schedule.step()

    written_out, optimizer = start()
    first = Schedule(written_out, in_float)
    for number in range(in_float):
        train(written_out, optimizer, number)
        first.step()
    tracker = Oscillations(written_out, annealed_threshold(steps), freeze=True)
    tracker.steps = in_float
    for number in range(in_float, steps):
        train(written_out, optimizer, number)
        tracker.step()

    for ours, expected in zip(recipe.state_dict().values(), written_out.state_dict().values(), strict=True):
        assert torch.equal(ours, expected)
    assert schedule.oscillations.report() == tracker.report()
    assert any(row.frozen for row in tracker.report())


@pytest.mark.parametrize("save_at", [10, 15, 40])
def test_a_recipe_goes_on_from_a_checkpoint(save_at):
    def start():
        torch.manual_seed(0)
        model = prepare(nn.Linear(4, 8), QATConfig(QuantSpec(2, scale="learned")))
        return model, torch.optim.Adam(model.parameters(), lr=0.1), Schedule.over(model, 60)

    def run(parts, numbers):
        model, optimizer, schedule = parts
        for number in numbers:
            x = torch.randn(16, 4, generator=torch.Generator().manual_seed(number))
            optimizer.zero_grad()
            (model(x) - x.sin().sum(1, keepdim=True)).square().mean().backward()
            optimizer.step()
            schedule.step()

    whole, stopped, resumed = start(), start(), start()
    run(whole, range(60))
    run(stopped, range(save_at))
    for part, before in zip(resumed, stopped, strict=True):
        part.load_state_dict(copy.deepcopy(before.state_dict()))
    run(resumed, range(save_at, 60))
    for ours, expected in zip(resumed[0].state_dict().values(), whole[0].state_dict().values(), strict=True):
        assert torch.equal(ours, expected)
    assert resumed[2].oscillations.report() == whole[2].oscillations.report()


@pytest.mark.parametrize("steps", [-1, 2.5, True])
def test_a_training_has_a_whole_number_of_steps(steps):
    with pytest.raises(ValueError, match="expected a whole number of steps"):
        Schedule.over(prepare(nn.Linear(1, 1)), steps)


@pytest.mark.parametrize(("bits", "in_float"), [(8, 50), (4, 50), (3, 50), (2, 25), (1.58, 25)])
def test_how_much_of_a_training_is_in_float_hangs_on_the_narrowest_weights(bits, in_float):
    layers = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    model = prepare(layers, QATConfig(QuantSpec(8), overrides={"1": QATConfig(QuantSpec(bits))}))
    assert Schedule.over(model, 100).quantize_after == in_float


@pytest.mark.parametrize("granularity", ["per_tensor", "per_channel"])
def test_learned_scales_begin_in_a_compiled_model_where_they_do_in_any(granularity):
    losses = []
    for compiled in (lambda model: model, lambda model: torch.compile(model, backend="eager")):
        torch.manual_seed(0)
        weight = QuantSpec(bits=4, scale="learned", granularity=granularity)
        model = prepare(nn.Linear(6, 3), QATConfig(weight, QuantSpec.activation(scale="learned")))
        schedule, optimizer = Schedule(model, quantize_after=2), torch.optim.SGD(model.parameters(), 0.05)
        forward, x = compiled(model), torch.randn(16, 6)
        for _ in range(5):
            optimizer.zero_grad()
            loss = forward(x).square().mean()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
    assert losses[5:] == pytest.approx(losses[:5], rel=1e-6)
