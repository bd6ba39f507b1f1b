"""The scale with the smallest squared error, searched now and then, is never far from the best."""

import pytest
import torch
from torch import nn

from qat_core import QATConfig, QuantSpec, prepare
from qat_core.affine import minmax_qparams, mse_fraction, mse_qparams, to_groups
from qat_core.search import SEARCH_EVERY


@pytest.mark.parametrize("granularity", ["per_tensor", "per_channel", "per_group"])
def test_the_first_mse_scale_is_that_of_the_whole_search(granularity):
    torch.manual_seed(0)
    spec = QuantSpec(3, granularity, group_size=8, scale="mse")
    model = prepare(nn.Linear(16, 8), QATConfig(spec))
    groups = model.weight_quantizer._groups(model.weight)
    assert torch.equal(model.weight_quantizer.source.qparams(groups)[0], mse_qparams(groups, spec)[0])
    model(torch.randn(2, 16))
    assert torch.equal(model.weight_quantizer.source.qparams(groups)[0], mse_qparams(groups, spec)[0])


def test_an_mse_scale_follows_its_weight():
    """Tails that grow ask for a smaller fraction of the extremes; the scale in use is never far from the best."""
    torch.manual_seed(0)
    model = prepare(nn.Linear(256, 4), QATConfig(QuantSpec(4, scale="mse")))
    spec, quantizer, weight = QuantSpec(4, scale="mse"), model.weight_quantizer, model.weight.detach()
    start, tails = weight.clone(), torch.randn_like(weight) ** 3
    for step in range(20 * SEARCH_EVERY):
        weight.copy_(start + tails * step / (20 * SEARCH_EVERY) / 20)
        model(torch.ones(1, 256))
    best, _ = mse_qparams(weight, spec)
    error, least = ((q - weight).square().sum() for q in (quantizer(weight), on_grid(weight, best)))
    assert error <= 1.02 * least
    assert quantizer.source.fraction.max() < 1


def on_grid(weight, scale):
    return torch.clamp(torch.round(weight / scale), -8, 7) * scale


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("granularity", ["per_channel", "per_group"])
def test_a_search_in_pieces_finds_what_one_in_the_whole_finds(granularity, symmetric, monkeypatch):
    torch.manual_seed(0)
    spec = QuantSpec(3, granularity, group_size=8, scale="mse", symmetric=symmetric)
    groups = to_groups(torch.randn(37, 24), spec)
    whole = mse_qparams(groups, spec)
    fraction = mse_fraction(groups, *minmax_qparams(groups, spec), spec, around=torch.full_like(whole[0], 0.8))
    monkeypatch.setattr("qat_core.affine.PIECE", 48)
    assert torch.equal(mse_qparams(groups, spec)[0], whole[0])
    in_pieces = mse_fraction(groups, *minmax_qparams(groups, spec), spec, around=torch.full_like(whole[0], 0.8))
    assert torch.equal(in_pieces, fraction)
