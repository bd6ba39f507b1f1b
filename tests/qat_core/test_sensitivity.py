"""One layer at a time, and what the budget buys."""

import itertools

import pytest
import torch
from torch import nn

from qat_core import QATConfig, QuantSpec, SensitivityRow, prepare, sensitivity, suggest


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
    model = nn.ModuleDict({"a[0]": nn.Linear(2, 2), "a0": nn.Linear(2, 2)})
    rows = sensitivity(model, lambda m: float(isinstance(m["a0"], nn.Linear)), bits=(4,))
    assert [row.name for row in rows] == ["a[0]", "a0"]


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


def test_the_suggestion_fits_and_for_small_cases_is_near_the_best():
    torch.manual_seed(0)
    for _ in range(20):
        damages = [sorted(torch.rand(3).tolist(), reverse=True) for _ in range(3)]
        rows = rows_of(*damages)
        for budget in (60, 100, 160, 240):
            chosen = [suggest(rows, budget).overrides[row.name].weight.bits for row in rows]
            spent = sum(row.bytes_at(bits) for row, bits in zip(rows, chosen, strict=True))
            assert spent <= budget
            found = sum(row.damage_at(bits) for row, bits in zip(rows, chosen, strict=True))
            options = [o for o in itertools.product((2, 4, 8), repeat=3) if sum(10 * bits for bits in o) <= budget]
            best = min(sum(r.damage_at(b) for r, b in zip(rows, o, strict=True)) for o in options)
            assert found <= best + 0.5


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
    with pytest.raises(ValueError, match="evaluate gave nan for the FP32 model"):
        sensitivity(nn.Linear(1, 1), lambda model: float("nan"))
