"""Learned scales that grow with their weights."""

import pytest
import torch
from torch import nn

from qat_core import QATConfig, QuantSpec, prepare


@pytest.mark.parametrize(
    ("bits", "granularity", "out", "factor"),
    [(3, "per_tensor", 6, 1), (4, "per_tensor", 6, 8), (8, "per_tensor", 6, 8), (2, "per_channel", 6, 8)]
    + [(2, "per_channel", 1, 8), (2, "per_group", 6, 8)],
)
def test_stairs_grow_with_the_weights(bits, granularity, out, factor):
    """By powers of two, so that nothing is rounded: codes stay. One narrow scale for all stays by itself."""
    layer = prepare(nn.Linear(70, out), QATConfig(QuantSpec(bits, granularity, scale="learned")))
    codes = layer.weight_quantizer.codes(layer.weight)
    scale, _ = layer.weight_quantizer.source.qparams(layer.weight_quantizer._groups(layer.weight))
    with torch.no_grad():
        layer.weight.mul_(8)
    grown, _ = layer.weight_quantizer.source.qparams(layer.weight_quantizer._groups(layer.weight))
    torch.testing.assert_close(grown, factor * scale, rtol=1e-6, atol=0)
    assert torch.equal(layer.weight_quantizer.codes(layer.weight), codes) == (factor == 8)


def test_one_scale_of_an_earlier_checkpoint_stays_by_itself():
    """As it did when it was saved."""
    layers = [prepare(nn.Linear(5, 3), QATConfig(QuantSpec(granularity="per_tensor", scale="learned"))) for _ in "ab"]
    saved = layers[0].state_dict()
    source = layers[0].weight_quantizer.source
    saved["weight_quantizer.source.pace"] = torch.ones(1)
    scale = source.qparams(layers[0].weight)[0].detach()
    saved["weight_quantizer.source.begin"] = scale.log2()
    del saved["weight_quantizer.source.grows"]
    layers[1].load_state_dict(saved)
    torch.testing.assert_close(layers[1].weight_quantizer.source.qparams(layers[0].weight)[0], scale)
    torch.testing.assert_close(layers[1].weight_quantizer.source.qparams(8 * layers[0].weight)[0], scale)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_a_head_with_one_output_learns_by_descent_from_its_first_weights(bits):
    """It has one scale, and its weights have to grow: what is clamped no longer learns."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(256, 64, generator=generator)
    y = x @ torch.randn(64, 1, generator=generator)
    torch.manual_seed(0)
    head = prepare(nn.Linear(64, 1), QATConfig(QuantSpec(bits, scale="learned")))
    optimizer = torch.optim.SGD(head.parameters(), lr=0.02, momentum=0.9)
    for _ in range(100):
        optimizer.zero_grad()
        loss = (head(x) - y).square().mean()
        loss.backward()
        optimizer.step()
    assert loss < {2: 0.3, 4: 0.05, 8: 0.01}[bits] * y.square().mean()


@pytest.mark.parametrize("begin", [None, 1.0])
def test_a_checkpoint_with_the_whole_logarithm_has_the_scale_that_was_saved(begin):
    """The earliest had it in `log2_scale`, later ones in part in `begin`."""
    layers = [prepare(nn.Linear(5, 3), QATConfig(QuantSpec(granularity="per_tensor", scale="learned"))) for _ in "ab"]
    weight, prefix = layers[0].weight, "weight_quantizer.source."
    scale = layers[0].weight_quantizer.source.qparams(weight)[0].detach()
    saved = {name: x for name, x in layers[0].state_dict().items() if not name.startswith(prefix)}
    saved[f"{prefix}log2_scale"] = scale.log2() - (begin or 0)
    if begin:
        saved[f"{prefix}begin"] = torch.full_like(scale, begin)
    layers[1].load_state_dict(saved)
    torch.testing.assert_close(layers[1].weight_quantizer.source.qparams(weight)[0], scale)
