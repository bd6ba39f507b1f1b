"""A file holds activations of one width: four bits beside bytes would corrupt memory in onnxruntime 1.22 to 1.30."""

import onnx
import pytest
import torch
from torch import nn

from export import check_parity, export_onnx
from qat_core import QATConfig, QuantSpec
from tests.export.models import prepared


def config(bits, weight_bits=4, **overrides):
    def of(width):
        return QATConfig(
            QuantSpec(weight_bits, power_of_two=True), QuantSpec.activation(width, scale="mse", power_of_two=True)
        )

    return QATConfig(of(bits).weight, of(bits).activation, {name: of(width) for name, width in overrides.items()})


class Masked(nn.Module):
    """Truth values of the shape of the codes beside them."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x):
        x = torch.relu(self.a(x))
        return torch.where(x > 0.1, self.b(x), x)


def mlp(limit):
    return nn.Sequential(nn.Linear(8, 8), limit, nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))


IMAGES = nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 3)


@pytest.mark.parametrize(
    ("model", "config", "shape", "width"),
    [
        (mlp(nn.ReLU()), config(4), (8,), 4),
        (mlp(nn.ReLU6()), config(4), (8,), 8),
        (mlp(nn.Hardtanh()), config(4), (8,), 8),
        (mlp(nn.ReLU()), config(4, **{"2": 8}), (8,), 8),
        (mlp(nn.ReLU()), config(8, **{"0": 4}), (8,), 8),
        (mlp(nn.ReLU()), config(4, weight_bits=8), (8,), 8),
        (nn.Sequential(*IMAGES), config(4), (1, 8, 8), 8),
        (Masked(), config(4), (8,), 8),
    ],
)
def test_activations_have_one_width_and_the_limits_of_their_own_bits(tmp_path, model, config, shape, width):
    torch.manual_seed(0)
    x = torch.randn(64, *shape)
    quantized, path = prepared(model, config, x), tmp_path / "model.onnx"
    export_onnx(quantized, x[:4], path)
    types = {t.name: onnx.TensorProto.DataType.Name(t.data_type) for t in onnx.load(path).graph.initializer}
    assert {types[name] for name in types if name.endswith("input_zero_point")} == {f"UINT{width}"}
    report = check_parity(quantized, path, 4 * x)
    assert [level.max_abs_diff for level in report.levels] == [0, 0, 0, 0]
