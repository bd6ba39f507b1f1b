"""What the tests of files share."""

import pytest
import torch
from torch import nn

from export import export_onnx
from qat_core import prepare


@pytest.fixture
def file(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "model.onnx"
    model = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 1))
    export_onnx(prepare(model), torch.randn(16, 2), path)
    return path
