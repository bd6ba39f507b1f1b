"""Half precision, of models and in autocast: ranges move in steps too fine for it, codes of a bias are too large."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from qat_core import QATConfig, QuantSpec, calibrate, convert, prepare
from tests.qat_core import by_hand


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_range_follows_in_half_precision_as_in_float(dtype):
    models = [
        prepare(nn.Linear(2, 1), QATConfig(QuantSpec(), QuantSpec.activation(8))).to(kind)
        for kind in (torch.float32, dtype)
    ]
    for step in range(300):
        for model in models:
            model(torch.tensor([[-1.0, 1 + min(step / 128, 1.0)]], dtype=model.weight.dtype))
    full, half = (model.input_quantizer.source.high.item() for model in models)
    assert half == pytest.approx(full, rel=1e-2)


@pytest.mark.parametrize("bits", [4, 8])
def test_codes_of_a_bias_are_larger_than_half_precision_goes(bits):
    layer = nn.Linear(64, 8)
    with torch.no_grad():
        layer.bias.copy_(torch.linspace(-4, 4, 8))
    x = torch.rand(256, 64)
    model = calibrate(prepare(layer, QATConfig(QuantSpec(bits), QuantSpec.activation(8))), [x]).eval()
    y = copy.deepcopy(model).half()(x.half()).float()
    assert (y - model(x)).norm() < 0.01 * model(x).norm()


SCALES = ("minmax", "mse", "learned")


@pytest.mark.parametrize("activations", [False, True])
def test_under_autocast_products_alone_are_of_half_precision(activations):
    """Grids are those of float32, and their numbers are rounded to bfloat16 for the product."""
    torch.manual_seed(0)
    layer, x = nn.Linear(8, 4), torch.randn(16, 8)
    model = prepare(layer, QATConfig(QuantSpec(4), QuantSpec.activation(8) if activations else None))
    with torch.autocast("cpu", torch.bfloat16):
        y = model(x)
    seen, bias = by_hand.Range(), layer.bias
    weight, weight_scale = by_hand.weight_on_grid(layer.weight)
    if activations:
        seen.move(x)
        x, input_scale = seen.on_grid(x)
        unit = input_scale * weight_scale.flatten()
        bias = by_hand.rounded(bias / unit) * unit
    expected = F.linear(*(tensor.bfloat16() for tensor in (x, weight, bias)))
    assert y.dtype == torch.bfloat16
    assert torch.equal(y, expected)
    for answer in (y, expected):
        answer.float().square().mean().backward()
    torch.testing.assert_close(model.weight.grad, layer.weight.grad, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("scale", SCALES)
def test_scaled_losses_give_the_same_gradients_and_a_step_is_skipped_on_overflow(scale):
    """A power of two goes through every gradient and out again without a trace, those of learned scales included."""
    torch.manual_seed(0)
    config = QATConfig(QuantSpec(4, scale=scale), QuantSpec.activation(8, scale=scale))
    model = prepare(nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 1)), config)
    plain, x = copy.deepcopy(model), torch.randn(16, 8)
    optimizer, scaler = torch.optim.SGD(model.parameters(), 0.1), torch.amp.GradScaler("cpu", init_scale=2.0**16)
    plain(x).square().mean().backward()
    scaler.scale(model(x).square().mean()).backward()
    scaler.unscale_(optimizer)
    for (name, ours), theirs in zip(model.named_parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad), name
    scaler.step(optimizer)
    scaler.update()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer.zero_grad()
    scaler.scale(model(x).square().mean() * 1e38).backward()
    scaler.step(optimizer)
    scaler.update()
    assert all(map(torch.equal, model.parameters(), before))
    assert scaler.get_scale() == 2.0**15


@pytest.mark.parametrize("scale", SCALES)
def test_what_is_built_where_bfloat16_is_the_default_remembers_in_float32(scale):
    """As transformers and torchtune build models of half precision."""
    torch.set_default_dtype(torch.bfloat16)
    try:
        config = QATConfig(QuantSpec(4, scale=scale), QuantSpec.activation(8, scale=scale))
        model, x = prepare(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1)), config), torch.randn(32, 4)
        for _ in range(3):
            model(x).sum().backward()
        assert torch.equal(convert(model)(x), model.eval()(x))
    finally:
        torch.set_default_dtype(torch.float32)
    assert {tensor.dtype for name, tensor in model.state_dict().items() if "quantizer" in name} <= {torch.float32}
