"""Integer kernels: promised where the graph has their form, seen in onnxruntime's own graph, missed when gone."""

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

import export.write.exporter
from export import KernelError, Kernels, Setup, check, export_onnx
from export.__main__ import main
from qat_core import QATConfig, QuantSpec
from tests.export.models import W4A8, prepared

NOT_FUSED = "session.disable_quant_qdq"


def images():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3, groups=8),
        nn.ReLU6(),
        nn.Flatten(),
        nn.Linear(32, 6),
        nn.Tanh(),
        nn.Linear(6, 4),
    )


@pytest.mark.parametrize("bits", [4, 8])
def test_codes_stored_in_int8_run_in_integer_kernels_and_their_loss_is_noticed(tmp_path, capsys, bits):
    path, x = tmp_path / "model.onnx", torch.randn(8, 3, 10, 10)
    model = prepared(images(), QATConfig(QuantSpec(bits), W4A8.activation), x)
    report = export_onnx(model, x, path, storage="int8")
    kinds = {"0/Conv": "QLinearConv", "3/Conv": "QLinearConv", "6/Gemm": "QGemm", "8/Gemm": "QGemm"}
    assert report.kernels == Kernels(kinds)
    assert "4 layers run as QGemm and QLinearConv" in str(report)
    assert check(path).kernels == Kernels(kinds)
    lost = check(path, Setup(config={NOT_FUSED: "1"})).kernels
    assert set(lost.missing) == set(kinds)
    with pytest.raises(KernelError, match=r"runs 4 of 4 layers without their quick kernel: 0/Conv as .*, expected QL"):
        lost.raise_if_missing()
    assert main(["check", str(path)]) == 0
    assert main(["check", str(path), "--config", f"{NOT_FUSED}=1"]) == 1
    captured = capsys.readouterr()
    assert "does NOT hold" in captured.out
    assert "without their quick kernel" in captured.err


@pytest.mark.parametrize("storage", [None, "int8"])
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
def test_the_largest_sums_are_the_same_on_every_processor(tmp_path, bits, storage, symmetric):
    """Pairs of products that do not fit into 16 bits, which is where processors without VNNI cut them off."""
    model, x = nn.Sequential(nn.Linear(64, 3), nn.ReLU(), nn.Linear(3, 2)), torch.ones(4, 64)
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([1.0, -1.0, 0.5]).unsqueeze(1).expand(3, 64))
    config = QATConfig(QuantSpec(bits), QuantSpec.activation(symmetric=symmetric, power_of_two=True))
    quantized, path = prepared(model, config, x), tmp_path / "model.onnx"
    assert export_onnx(quantized, x, path, storage=storage).outcome != "broken"
    stored = {tensor.name: tensor for tensor in onnx.load(path).graph.initializer}
    codes, zero_point = (numpy_helper.to_array(stored[name]) for name in ("0.weight", "0.weight_zero_point"))
    expected = quantized[0].weight_quantizer.codes(quantized[0].weight).numpy()
    np.testing.assert_array_equal(codes.astype(int) - zero_point.astype(int).reshape(-1, 1), expected)
    if bits == 8:
        assert (codes.dtype, set(zero_point.tolist())) == (np.uint8, {128})


def test_an_onnxruntime_that_no_longer_fuses_stops_the_export(tmp_path, monkeypatch):
    def find(path, expected, slow):
        return Kernels(expected, dict.fromkeys(expected, "Gemm"), slow)

    monkeypatch.setattr(export.write.exporter, "find_kernels", find)
    model, x = prepared(nn.Sequential(nn.Linear(5, 3)), W4A8, torch.randn(9, 5)), torch.randn(9, 5)
    with pytest.raises(KernelError, match=r"1 of 1 layers without their quick kernel: 0/Gemm as Gemm, expected QGemm"):
        export_onnx(model, x, tmp_path / "model.onnx", storage="int8")
    assert list(tmp_path.iterdir()) == []


def test_what_has_no_integer_kernel_says_why(tmp_path):
    torch.manual_seed(0)
    layers = nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16), nn.Linear(16, 4)
    signed = QATConfig(QuantSpec(4), QuantSpec.activation(symmetric=True))
    groups = QATConfig(QuantSpec(4, "per_group", group_size=8), QuantSpec.activation())
    config = QATConfig(activation=W4A8.activation, overrides={"2": signed, "4": groups, "5": QATConfig()})
    x = torch.randn(9, 16)
    report = export_onnx(prepared(nn.Sequential(*layers), config, x), x, tmp_path / "model.onnx", storage="int8")
    assert report.kernels.expected == {"2/Gemm": "QGemm"}
    assert report.kernels.slow == {
        "0": "1/Relu behind it allows other numbers than the codes that follow",
        "4": "its weights have more than one scale a channel, or a half-shifted grid",
        "5": "its input is not 8-bit codes",
    }


@pytest.mark.parametrize("option", [["--threads", "-1"], ["--provider", "MoonProvider"]])
def test_a_session_that_cannot_be_is_a_wrong_question(tmp_path, capsys, option):
    assert main(["check", str(tmp_path / "model.onnx"), *option]) == 2
    assert "expected" in capsys.readouterr().err
