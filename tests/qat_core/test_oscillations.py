"""The oscillation tracker, on weights that move as told."""

import math

import pytest
import torch
from torch import nn

from qat_core import Oscillations, QATConfig, QuantSpec, annealed_threshold, prepare
from qat_core.lsq import RATE


def swinging(freeze):
    """Three weights on a grid of step 1: the first swings between two codes, the second moves on, the third rests."""
    layer = nn.Linear(4, 1, bias=False)
    layer.weight.data = torch.tensor([[0.4, -6.0, 2.0, 7.0]])
    prepared = prepare(layer, QATConfig(QuantSpec(granularity="per_tensor")))
    tracker = Oscillations(prepared, threshold=0.3, freeze=freeze, momentum=0.1)
    reports = []
    for step in range(12):
        with torch.no_grad():
            prepared.weight[0, 0] = 0.6 if step % 4 else 0.4
            prepared.weight[0, 1] += 1.0
        tracker.step()
        reports += tracker.report()
    return prepared, tracker, reports


def test_frequency_is_the_moving_average_of_reversals():
    _, tracker, reports = swinging(freeze=False)
    expected, codes, direction, last = 0.0, [1 if step % 4 else 0 for step in range(12)], 0, 0
    for code in codes:
        change = (code > last) - (code < last)
        expected += 0.1 * ((change * direction < 0) - expected)
        direction, last = change or direction, code
    assert tracker.frequency("weight")[0, 0].item() == pytest.approx(expected)
    assert tracker.frequency("weight")[0, 1:].tolist() == [0, 0, 0]
    assert reports[0].name == "weight"
    assert reports[0].flipped == 0.25  # the second weight moved on by one code
    assert all(report.frozen == 0 for report in reports)


def test_an_oscillating_weight_is_held_at_the_code_where_it_mostly_was():
    prepared, tracker, reports = swinging(freeze=True)
    assert (tracker.frequency("weight")[0] > 0).tolist() == [True, False, False, False]
    prepared, tracker, _ = swinging(freeze=False)
    tracker.freeze, tracker.threshold_at = True, lambda steps: 0.1
    tracker.step()
    assert reports[-1].oscillating <= 0.25
    with torch.no_grad():
        prepared.weight[0, 0] = -5.0
    tracker.step()
    (report,) = tracker.report()
    assert report.frozen == 0.25
    assert prepared.weight[0, 0].item() == 1.0


def test_tied_weights_are_tracked_once():
    model = nn.ModuleList([nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)])
    model[1].weight = model[0].weight
    assert list(Oscillations(prepare(model)).weights) == ["0.weight"]


def test_a_checkpoint_goes_on_as_if_nothing_had_happened():
    def trained(steps, tracker, weight):
        for step in steps:
            with torch.no_grad():
                weight[0, 0] = 0.6 if step % 4 else 0.4
            tracker.step()

    torch.manual_seed(0)
    config = QATConfig(QuantSpec(bits=8, granularity="per_tensor"))
    prepared = prepare(nn.Linear(4, 4), config)
    whole = Oscillations(prepared, freeze=True, threshold=0.1, momentum=0.1)
    trained(range(10), whole, prepared.weight)
    state, weights = whole.state_dict(), prepared.weight.detach().clone()
    state = {name: {kind: tensor.clone() for kind, tensor in kinds.items()} for name, kinds in state.items()}
    trained(range(10, 20), whole, prepared.weight)
    expected = whole.state_dict()["weight"]

    with torch.no_grad():
        prepared.weight.copy_(weights)
    resumed = Oscillations(prepared, freeze=True, threshold=0.1, momentum=0.1)
    resumed.load_state_dict(state)
    trained(range(10, 20), resumed, prepared.weight)
    for kind, tensor in resumed.state_dict()["weight"].items():
        assert torch.equal(tensor, expected[kind])
    assert expected["frozen"].any()
    assert not torch.equal(state["weight"]["frequency"], expected["frequency"])  # the state is a copy of its own

    with pytest.raises(ValueError, match=r"the state is of weight; expected 0.weight"):
        Oscillations(prepare(nn.Sequential(nn.Linear(4, 4)))).load_state_dict(state)


def test_an_annealed_threshold_lets_early_flips_be():
    threshold = annealed_threshold(steps=1000, begin=0.2, high=0.1, low=0.02)
    assert [threshold(step) for step in (1, 199)] == [1.0, 1.0]
    assert [threshold(step) for step in (200, 600, 1000, 5000)] == pytest.approx([0.1, 0.06, 0.02, 0.02])

    prepared = prepare(nn.Linear(4, 4), QATConfig(QuantSpec(bits=8, granularity="per_tensor")))
    tracker = Oscillations(prepared, annealed_threshold(steps=40, begin=0.5), freeze=True, momentum=0.5)
    frozen = []
    for step in range(40):
        with torch.no_grad():
            prepared.weight[0, 0] = 0.3 if step % 2 else -0.3
        tracker.step()
        (report,) = tracker.report()
        frozen.append(report.frozen)
    assert frozen[:19] == [0] * 19
    assert frozen[19:] == [1 / 16] * 21


@pytest.mark.parametrize("granularity", ["per_channel", "per_group"])
@pytest.mark.parametrize("factor", [0.25, 4.0])
def test_held_weights_and_a_scale_that_grows_with_them_do_not_drive_each_other(granularity, factor):
    """A weight of code c is c times its scale: were the scale still a share of the weight, both would grow or die."""
    layer = prepare(nn.Linear(32, 4), QATConfig(QuantSpec(4, granularity, scale="learned")))
    layer(torch.randn(2, 32))
    source = layer.weight_quantizer.source
    with torch.no_grad():
        source.log2_growth += math.log2(factor) / RATE
    tracker = Oscillations(layer, threshold=0.5, freeze=True)
    before, codes = layer.weight_quantizer.with_scale(layer.weight)[1], layer.weight_quantizer.codes(layer.weight)
    tracker.weights["weight"].frequency.fill_(1.0)
    for _ in range(100):
        tracker.step()
    scale = layer.weight_quantizer.with_scale(layer.weight)[1]
    torch.testing.assert_close(scale, before)
    assert torch.equal(layer.weight_quantizer.codes(layer.weight), codes)

    other = prepare(nn.Linear(32, 4), QATConfig(QuantSpec(4, granularity, scale="learned")))
    other.load_state_dict(layer.state_dict())
    with torch.no_grad():
        layer.weight *= 2
        other.weight *= 2
    assert torch.equal(layer.weight_quantizer.with_scale(layer.weight)[1], scale)
    assert torch.equal(other.weight_quantizer.with_scale(other.weight)[1], scale)


def test_thresholds_are_fractions():
    with pytest.raises(ValueError, match=r"threshold=2, momentum=0.02; expected fractions"):
        Oscillations(prepare(nn.Linear(1, 1)), threshold=2)
