"""When quantization and observers switch."""

import pytest
import torch
from torch import nn

from qat_core import Oscillations, QATConfig, QuantSpec, Schedule, calibrate, prepare


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
