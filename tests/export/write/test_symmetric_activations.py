"""Symmetric activations are signed in PyTorch and unsigned in a file: the same numbers, counted from another code."""

import onnx
import pytest
import torch
from torch import nn

from export import FileError, Setup, audit, check_parity, export_onnx
from export.read.graph import Graph
from export.read.runtime import LEVELS, session
from export.write.divergence import _places, _values, watch
from qat_core import QATConfig, QuantSpec, convert
from tests.export.models import prepared

SIGNED_CODES_BEFORE_A_RESHAPE = """
<ir_version: 10, opset_import: ["": 21]>
g (float[2, 3, 4] x) => (float[N, 4] y) <float scale = {0.1}, int8 zero_point = {0}, int64[2] rows = {-1, 4}> {
    codes = QuantizeLinear(x, scale, zero_point)
    numbers = DequantizeLinear(codes, scale, zero_point)
    reshaped = Reshape(numbers, rows)
    y = Relu(reshaped)
}
"""


def config(bits, weight_bits=4, symmetric=True):
    activation = QuantSpec.activation(bits, symmetric=symmetric, power_of_two=True)
    return QATConfig(QuantSpec(weight_bits, power_of_two=True), activation)


class Residual(nn.Module):
    """Two layers read one input, and their sum goes on."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x):
        return self.c(x + torch.relu(self.a(x)) - self.b(x))


@pytest.mark.parametrize("level", LEVELS)
def test_onnxruntime_still_cannot_load_signed_codes_before_a_reshape(level):
    """When it can, `storage.py` may store them as they are: see docs/upstream.md."""
    model = onnx.parser.parse_model(SIGNED_CODES_BEFORE_A_RESHAPE)
    setup = Setup(config={"session.qdqisint8allowed": "0"})  # the default of some processors, and here of all
    if level in ("disable_all", "basic"):
        session(model, level, setup)
        return
    with pytest.raises(FileError, match="output_dtype INT8 does not match y_zero_point type UINT8"):
        session(model, level, setup)


@pytest.mark.parametrize(("bits", "weight_bits"), [(1.58, 4), (4, 4), (4, 8), (6, 4), (8, 8)])
def test_sequences_of_rows_answer_alike_at_every_level_to_the_bit(tmp_path, bits, weight_bits):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8), Residual())
    quantized, path = prepared(model, config(bits, weight_bits), torch.randn(3, 5, 8)), tmp_path / "model.onnx"
    export_onnx(quantized, torch.randn(2, 5, 8), path)
    report = check_parity(quantized, path, 3 * torch.randn(7, 4, 8))
    assert [level.max_abs_diff for level in report.levels] == [0, 0, 0, 0]


@pytest.mark.parametrize(("weight_bits", "dtype", "zero"), [(4, "UINT4", 8), (8, "UINT8", 128)])
def test_zero_is_the_middle_of_the_unsigned_codes(tmp_path, weight_bits, dtype, zero):
    x, path = torch.randn(9, 8), tmp_path / "model.onnx"
    model = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3))
    export_onnx(prepared(model, config(4, weight_bits), x), x, path)
    stored = {row.name: row.dtype for row in audit(path).rows}
    names = [name for name in stored if name.endswith("input_zero_point")]
    assert {stored[name] for name in names} == {dtype}
    assert {int(Graph.open(path).array(name)) for name in names} == {zero}


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [4, 8])
def test_codes_inside_a_file_are_those_that_torch_has(tmp_path, symmetric, bits):
    """What finds the place where answers part sees no difference where there is none."""
    x, path = torch.randn(2, 5, 8), tmp_path / "model.onnx"
    quantized = prepared(Residual(), config(bits, symmetric=symmetric), x)
    export_onnx(quantized, x, path)
    graph = Graph.open(path)
    places = _places(watch(convert(quantized), [x]), graph)
    found = _values([value for value, _ in places], graph, [x.numpy()], "disable_all", None)
    assert sum(probe.encode is not None for _, probe in places) == 3
    assert not any(probe.differs(numbers).any() for (_, probe), numbers in zip(places, found, strict=True))
