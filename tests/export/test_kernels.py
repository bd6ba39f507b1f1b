"""Integer kernels: promised where the graph has their form, seen in onnxruntime's own graph, missed when gone."""

import pytest
import torch
from torch import nn

import export.exporter
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


def test_an_onnxruntime_that_no_longer_fuses_stops_the_export(tmp_path, monkeypatch):
    def find(path, expected, slow):
        return Kernels(expected, dict.fromkeys(expected, "Gemm"), slow)

    monkeypatch.setattr(export.exporter, "find_kernels", find)
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
