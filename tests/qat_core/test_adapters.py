"""LoRA: two small layers beside a frozen one, on a quantized base or quantized themselves."""

import copy

import pytest
import torch
from torch import nn

from qat_core import QATConfig, QuantSpec, calibrate, convert, prepare
from qat_core.layers import quantized_layers
from tests.qat_core import by_hand

SHARE = 0.5  # alpha / r
W4A8 = QATConfig(QuantSpec(4), QuantSpec.activation(8))


class Adapted(nn.Module):
    """base(x) + SHARE * b(a(x)), b beginning at zero."""

    def __init__(self):
        super().__init__()
        self.base = nn.Linear(16, 12)
        self.lora_a, self.lora_b = nn.Linear(16, 4, bias=False), nn.Linear(4, 12, bias=False)
        nn.init.zeros_(self.lora_b.weight)
        self.base.requires_grad_(False)

    def forward(self, x):
        return self.base(x) + SHARE * self.lora_b(self.lora_a(x))


def in_float(x, weight):
    return x @ weight.T


WAYS = {  # overrides of the config, and what the adapters' layers are by hand
    "on a quantized base": ({"lora_*": None}, in_float),
    "quantized as well": ({"lora_*": QATConfig(QuantSpec(4))}, lambda x, weight: by_hand.linear(x, weight, None)),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("activations", [False, True])
def test_adapters_train_as_by_hand_and_their_base_stays(way, activations):
    torch.manual_seed(0)
    overrides, adapter = WAYS[way]
    network = Adapted()
    model = prepare(network, QATConfig(QuantSpec(4), W4A8.activation if activations else None, overrides))
    base, a, b = (copy.deepcopy(layer) for layer in network.children())
    optimizers = [
        torch.optim.SGD([p for p in parameters if p.requires_grad], lr=0.1)
        for parameters in (model.parameters(), [a.weight, b.weight])
    ]
    seen = by_hand.Range()
    for step in range(20):
        x, target = torch.randn(32, 16) * (1 + step % 3), torch.randn(32, 12)
        if activations:
            seen.move(x)
            expected = by_hand.linear_of_codes(x, seen, base.weight, base.bias)
        else:
            expected = by_hand.linear(x, base.weight, base.bias)
        expected = expected + SHARE * adapter(adapter(x, a.weight), b.weight)
        y = model(x)
        torch.testing.assert_close(y, expected)
        for optimizer, answer in zip(optimizers, (y, expected), strict=True):
            optimizer.zero_grad()
            nn.functional.mse_loss(answer, target).backward()
            optimizer.step()
        torch.testing.assert_close(model.lora_a.weight, a.weight)
        torch.testing.assert_close(model.lora_b.weight, b.weight)
    assert model.lora_b.weight.abs().max() > 1e-3
    assert torch.equal(model.base.weight, base.weight)
    assert torch.equal(model.base.bias, base.bias)
    assert torch.equal(convert(model)(x), model.eval()(x))


def test_adapters_that_come_after_prepare_stay_in_float_beside_their_base():
    torch.manual_seed(0)
    network = Adapted()
    model = Adapted()
    model.base = calibrate(prepare(network.base, W4A8), [torch.randn(64, 16)])
    assert [name for name, _ in quantized_layers(model)] == ["base"]
    x = torch.randn(8, 16)
    with torch.no_grad():
        model.lora_b.weight.normal_()
    expected = model.base.eval()(x) + SHARE * in_float(in_float(x, model.lora_a.weight), model.lora_b.weight)
    torch.testing.assert_close(model(x), expected)
    torch.testing.assert_close(convert(model)(x), model.eval()(x), rtol=0, atol=0)


@pytest.mark.parametrize("scale", ["minmax", "mse", "learned"])
def test_an_adapter_that_is_merged_leaves_a_base_that_is_on_its_grid(scale):
    """W + SHARE * B A, written into the weight of the prepared base, is quantized as any other weight would be."""
    torch.manual_seed(0)
    network = Adapted()
    model = prepare(network, QATConfig(QuantSpec(4, scale=scale), overrides={"lora_*": None}))
    with torch.no_grad():
        model.lora_b.weight.normal_(0, 0.1)
        model.base.weight += SHARE * model.lora_b.weight @ model.lora_a.weight
        model.lora_b.weight.zero_()
    merged = convert(model)
    x = torch.randn(8, 16)
    assert torch.equal(merged(x), model.eval()(x))
    assert all(row.unique().numel() <= 16 for row in merged.base.weight)
