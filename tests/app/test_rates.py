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
    assert (kept["rates"], kept["chosen"], kept["seeds"]) == (list(rates.RATES), rates.RATE, rates.SEEDS)
    for bits in map(str, rates.BITS):
        means = [mean for mean, low, high in kept["errors"][bits] if low <= mean <= high]
        assert len(means) == len(rates.RATES)
        chosen = means[rates.RATES.index(rates.RATE)]
        assert chosen < means[0]
        assert chosen < means[-1]


def test_it_is_measured_by_a_command(monkeypatch, tmp_path):
    monkeypatch.setitem(SUITE, "waves", SUITE["waves"].shortened(5))
    found = json.loads(rates.to_json(("waves",), seeds=1, rates=(1, rates.RATE)))
    assert found["errors"].keys() == {"4", "2"}
    assert all(len(errors) == 2 and errors[0] != errors[1] for errors in found["errors"].values())
