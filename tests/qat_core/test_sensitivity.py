"""One layer at a time, and what the budget buys."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from qat_core import (
    Mix,
    QATConfig,
    QuantLinear,
    QuantSpec,
    SensitivityRow,
    frontier,
    plan,
    prepare,
    sensitivity,
    suggest,
)
from qat_core.sensitivity import scan


def model_and_loss():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 24), nn.Tanh(), nn.Linear(24, 24), nn.Tanh(), nn.Linear(24, 2))
    x = torch.randn(256, 6)
    target = model(x).detach()
    return model, lambda candidate: (candidate(x) - target).square().mean().item()


def test_each_row_is_the_model_with_that_layer_alone_quantized():
    model, loss = model_and_loss()
    config = QATConfig(QuantSpec(bits=3))
    rows = sensitivity(model, loss, config, bits=(2, 8))
    assert [(row.name, row.elements) for row in rows] == [("0", 144), ("2", 576), ("4", 48)]
    for row in rows:
        only = {name: None for name in ("0", "2", "4") if name != row.name}
        for bits in (2, 3, 8):
            expected = loss(prepare(model, QATConfig(QuantSpec(bits=bits), overrides=only)))
            assert row.by_bits[bits] == expected
        assert row.metric == row.by_bits[3]
        assert row.baseline == 0
    assert type(model[0]) is nn.Linear


def test_a_name_that_looks_like_a_glob_is_taken_literally():
    model = nn.ModuleDict({"a[0]": nn.Linear(2, 2), "a0": nn.Linear(2, 2), "a*": nn.Linear(2, 2)})
    rows = sensitivity(model, lambda m: float(sum(isinstance(layer, QuantLinear) for layer in m.values())), bits=(2, 4))
    assert [row.name for row in rows] == ["a[0]", "a0", "a*"]
    assert [row.metric for row in rows] == [1, 1, 1]
    config = Mix((2, 4, 2), 0, 0.0).config(rows)
    assert [layer.config.weight.bits for layer in plan(model, config).layers] == [2, 4, 2]


class Tied(nn.Module):
    """Words in, words out, through one table."""

    def __init__(self):
        super().__init__()
        self.words, self.middle, self.out = nn.Embedding(9, 6), nn.Linear(6, 6), nn.Linear(6, 9)
        self.out.weight = self.words.weight

    def forward(self, x):
        return self.out(self.middle(self.words(x)))


def test_layers_that_share_a_weight_are_measured_and_widened_together():
    model, words = Tied(), torch.arange(9)
    target = model(words).detach()

    def loss(candidate):
        return (candidate(words) - target).square().mean().item()

    rows = sensitivity(model, loss, bits=(2, 8))
    assert [(row.name, row.tied, row.elements) for row in rows] == [("words", ("out",), 54), ("middle", (), 36)]
    assert rows[0].by_bits[2] == loss(prepare(model, QATConfig(QuantSpec(2), overrides={"middle": None})))
    for budget in range(sum(row.bytes_at(2) for row in rows), sum(row.bytes_at(8) for row in rows) + 1):
        mixed = prepare(model, suggest(rows, budget))
        assert mixed.words.weight_quantizer is mixed.out.weight_quantizer


def rows_of(*damages):
    """Layers of 80 weights each with the damages given at 2, 4 and 8 bits."""
    config = QATConfig()
    return [
        SensitivityRow(str(i), 80, 0.0, d[1], dict(zip((2, 4, 8), d, strict=True)), config)
        for i, d in enumerate(damages)
    ]


def test_the_fragile_layer_gets_the_bits():
    rows = rows_of((0.1, 0.05, 0.0), (9.0, 5.0, 0.0), (0.1, 0.05, 0.0))
    config = suggest(rows, budget_bytes=20 + 80 + 20)
    assert {name: c.weight.bits for name, c in config.overrides.items()} == {"0": 2, "1": 8, "2": 2}


damages = st.tuples(*[st.integers(0, 100).map(lambda n: n / 128)] * 3)  # their sums are exact


@given(st.lists(damages, min_size=1, max_size=4), st.integers(20, 400))
def test_the_suggestion_is_the_best_there_is(measured, budget):
    rows = rows_of(*measured)
    options = list(itertools.product((2, 4, 8), repeat=len(rows)))
    affordable = [bits for bits in options if sum(10 * b for b in bits) <= budget]
    if not affordable:
        with pytest.raises(ValueError, match=f"budget_bytes={budget}; expected at least {20 * len(rows)}"):
            suggest(rows, budget)
        return
    config = suggest(rows, budget)
    chosen = tuple(config.overrides[row.name].weight.bits for row in rows)
    damage_of = {bits: sum(row.damage_at(b) for row, b in zip(rows, bits, strict=True)) for bits in affordable}
    assert damage_of[chosen] == min(damage_of.values())


@given(st.lists(damages, min_size=1, max_size=4))
def test_no_mix_beats_one_of_the_frontier(measured):
    rows = rows_of(*measured)
    mixes = frontier(rows)
    assert mixes[0].bits == (2,) * len(rows)
    for smaller, larger in itertools.pairwise(mixes):
        assert smaller.bytes < larger.bytes
        assert smaller.damage > larger.damage
    for bits in itertools.product((2, 4, 8), repeat=len(rows)):
        size = sum(10 * b for b in bits)
        damage = sum(row.damage_at(b) for row, b in zip(rows, bits, strict=True))
        assert any(mix.bytes <= size and mix.damage <= damage for mix in mixes)
    for mix in mixes:
        assert mix.bytes == sum(row.bytes_at(b) for row, b in zip(rows, mix.bits, strict=True))
        assert {n: c.weight.bits for n, c in mix.config(rows).overrides.items()} == dict(
            zip([row.name for row in rows], mix.bits, strict=True)
        )


def test_wider_is_not_chosen_where_it_does_more_damage():
    rows = rows_of((0.5, 1.2, 0.0))
    assert suggest(rows, budget_bytes=40).overrides["0"].weight.bits == 2
    assert suggest(rows, budget_bytes=80).overrides["0"].weight.bits == 8


def test_a_deep_model_gets_a_frontier_of_bounded_length_that_still_spends_the_budget():
    torch.manual_seed(0)
    rows = rows_of(*(sorted(torch.rand(3).tolist(), reverse=True) for _ in range(60)))
    mixes = frontier(rows, most=100)
    assert len(mixes) <= 101
    assert mixes[0].bytes == 60 * 20
    assert mixes[-1].damage == pytest.approx(sum(row.damage_at(8) for row in rows))
    exact = frontier(rows, most=10**9)
    for mix in mixes:
        best = min(other.damage for other in exact if other.bytes <= mix.bytes)
        assert mix.damage <= 1.05 * best + 0.5


def test_rows_come_one_by_one_and_are_those_of_the_whole_scan():
    model, loss = model_and_loss()
    measured = []

    def counting(candidate):
        measured.append(candidate)
        return loss(candidate)

    rows = scan(model, counting, QATConfig(QuantSpec(bits=3)), bits=(2, 8))
    first, total = next(rows)
    assert (first.name, total, len(measured)) == ("0", 3, 1 + 3)
    whole = sensitivity(model, loss, QATConfig(QuantSpec(bits=3)), bits=(2, 8))
    assert [first, *(row for row, _ in rows)] == whole


def test_a_suggestion_can_be_prepared():
    model, loss = model_and_loss()
    rows = sensitivity(model, loss, QATConfig(QuantSpec(granularity="per_tensor")))
    budget = sum(row.bytes_at(3) for row in rows)
    prepared = prepare(model, suggest(rows, budget))
    uniform = prepare(model, QATConfig(QuantSpec(bits=3, granularity="per_tensor")))
    assert prepared[0].weight_quantizer.spec.granularity == "per_tensor"
    assert loss(prepared) <= loss(uniform)


def test_what_cannot_be_done_gets_a_sentence():
    with pytest.raises(ValueError, match="budget_bytes=3; expected at least 20"):
        suggest(rows_of((1.0, 0.5, 0.1)), 3)
    with pytest.raises(ValueError, match="no rows"):
        suggest([], 100)
    with pytest.raises(ValueError, match="nothing to quantize"):
        sensitivity(nn.ReLU(), lambda model: 0.0)
    for metric in (math.nan, "high", None, torch.ones(2)):
        with pytest.raises(ValueError, match=r"evaluate gave .* for the FP32 model; expected a finite number"):
            sensitivity(nn.Linear(1, 1), lambda model, metric=metric: metric)
