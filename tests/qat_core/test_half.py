"""Half precision: a range moves in steps too fine for it, and codes of a bias are larger than it goes."""

import copy

import pytest
import torch
from torch import nn

from qat_core import QATConfig, QuantSpec, calibrate, prepare


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
