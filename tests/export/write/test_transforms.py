"""A forward that transforms a layer of its own with torch.func."""

import pytest
import torch
from torch import nn

from export import ParityError, check_parity, export_onnx
from qat_core import QATConfig, calibrate, prepare
from tests.export.write.test_parity import W4A8, change


@pytest.mark.parametrize("config", [QATConfig(), W4A8], ids=["W4", "W4A8"])
def test_rows_of_a_transform_are_no_tensors_to_be_watched(tmp_path, config):
    class Rows(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 3)

        def forward(self, x):
            return self.last(torch.vmap(lambda row: self.first(row).cumsum(0))(x))

    torch.manual_seed(0)
    model, x = Rows(), torch.randn(9, 6)
    model = calibrate(prepare(model, QATConfig(overrides={"first": QATConfig(), "last": config})), [x]).eval()
    assert export_onnx(model, x, tmp_path / "rows.onnx").ok
    changed = change(tmp_path / "rows.onnx", "first.bias", lambda bias: bias + 1)
    with pytest.raises(ParityError, match="they part at 'last.input/Q'" if config is W4A8 else "they part at 'output'"):
        check_parity(model, changed, x).raise_if_broken()
