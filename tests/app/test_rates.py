"""The rate of a learned scale: what the picture shows is what the lab measures."""

import json

import pytest

from app.components.module import STATIC
from app.lab import rates
from app.lab.suite import CHOOSING, SUITE
from qat_core import QATConfig, QuantSpec, prepare


@pytest.mark.parametrize("rate", [0.5, 2, 8])
def test_a_group_of_its_own_gives_a_scale_another_rate(rate):
    """Adam's first step is as long as its learning rate, whatever the gradient."""
    trial = SUITE["waves"].shortened(1)
    model, data = trial.start(seed=0)
    model = prepare(model, QATConfig(QuantSpec(4, scale="learned")))
    optimizer = rates.with_rate(trial, model, rate)
    learning_rate = optimizer.param_groups[0]["lr"]
    source = model[2].weight_quantizer.source
    before, weight = source.qparams(model[2].weight)[0], model[2].weight.detach().clone()
    trial.fit(model, optimizer, data, seed=0)
    octaves = (source.qparams(weight)[0] / before).log2().abs().detach()
    assert octaves.median().item() == pytest.approx(rate * learning_rate, rel=0.02)  # some have next to no gradient
    assert (model[2].weight - weight).abs().max().item() == pytest.approx(learning_rate, rel=1e-3)


def test_the_kept_figures_are_of_tasks_to_choose_on_and_hold_the_lesson():
    kept = json.loads((STATIC / "data" / "rates.json").read_text())
    assert set(kept["tasks"]) == set(rates.TASKS) <= set(CHOOSING)
    assert (kept["rates"], kept["starts"], kept["seeds"]) == ([*rates.RATES], [*rates.STARTS], rates.SEEDS)
    assert all(low <= mean <= high for of_rate in kept["errors"] for mean, low, high in of_rate)
    slow, chosen, quick = ([mean for mean, _, _ in of_rate] for of_rate in kept["errors"])
    assert slow[0] > 2 * chosen[0] > 4 * quick[0]  # far too small
    begins = rates.STARTS.index(0)
    assert max(slow[begins], chosen[begins], quick[begins]) < 1.2


def test_it_is_measured_by_a_command(monkeypatch):
    monkeypatch.setitem(SUITE, "staircase", SUITE["staircase"].shortened(5))
    found = json.loads(rates.to_json(("staircase",), seeds=1, starts=(0, -4)))
    assert len(found["errors"]) == len(rates.RATES)
    assert all(len(of_rate) == 2 and of_rate[0] != of_rate[1] for of_rate in found["errors"])
