"""What the tests of files share."""

import pytest
import torch
from torch import nn

from export import export_onnx
from qat_core import prepare


@pytest.fixture(scope="session")
def exported_once(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("once") / "model.onnx"
    model = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 1))
    export_onnx(prepare(model), torch.randn(16, 2), path)
    return path.read_bytes()


@pytest.fixture
def file(exported_once, tmp_path):
    """A copy for each test to change."""
    path = tmp_path / "model.onnx"
    path.write_bytes(exported_once)
    return path
