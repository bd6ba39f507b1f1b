"""What a file needs is told beforehand, in a sentence; how this machine computes is asked of its answers."""

from itertools import pairwise

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from torch import nn

import export.read.probes
import export.read.requires
import export.read.versions
from export import FileError, Setup, check, export_onnx
from export.__main__ import main
from export.read.graph import Graph
from export.read.probes import round_blocks, saturates
from export.read.receipt import read
from export.read.requires import as_json, requirements, unmet
from export.read.runtime import NO_INTEGER_KERNELS
from qat_core import QATConfig, QuantSpec
from tests.export.models import prepared

DYNAMIC = QuantSpec(8, "per_group", group_size=32, dynamic=True)
NO_PREPACKING = Setup(config={"session.disable_prepacking": "1"})


def written(path, config, *widths, **options):
    torch.manual_seed(0)
    layers = [nn.Linear(a, b) for a, b in pairwise(widths)]
    model, x = nn.Sequential(*layers), torch.randn(64, widths[0])
    quantized = prepared(model, config, x)
    return export_onnx(quantized, x, path, **options), quantized


def static(bits, **changes):
    return QATConfig(QuantSpec(bits, **changes), QuantSpec.activation(**changes))


@pytest.mark.parametrize(
    ("config", "options", "needs"),
    [
        (QATConfig(), {}, {"onnx": "1.19", "onnxruntime": "1.22"}),
        (QATConfig(QuantSpec(2)), {}, {"onnx": "1.20", "onnxruntime": "1.24"}),
        (QATConfig(), {"flavor": "ort"}, {"onnx": "1.19", "onnxruntime": "1.22"}),
        (static(8), {}, {"onnx": "1.19", "onnxruntime": "1.22", "onnxruntime on AMX": "1.25"}),
        (static(4), {}, {"onnx": "1.19", "onnxruntime": "1.22"}),
        (
            QATConfig(QuantSpec(4, "per_group"), DYNAMIC),
            {"flavor": "ort"},
            {"onnx": "1.19", "onnxruntime": "1.22", "processor": "AVX2", "session": "prepacked weights"},
        ),
        (
            QATConfig(QuantSpec(2, "per_group"), DYNAMIC),
            {"flavor": "ort"},
            {"onnx": "1.19", "onnxruntime": "1.29", "processor": "AVX2", "session": "prepacked weights"},
        ),
    ],
)
def test_what_a_file_needs_stands_in_it(tmp_path, config, options, needs):
    path = tmp_path / "model.onnx"
    written(path, config, 32, 17, **options)
    assert as_json(requirements(Graph.open(path))) == needs
    assert read(onnx.load(path))["requires"] == needs


@pytest.mark.parametrize(
    ("outputs", "needed"), [(16, False), (17, True), (31, True), (32, False), (49, True), (64, False)]
)
def test_outputs_that_amx_gets_wrong_in_old_versions(tmp_path, monkeypatch, outputs, needed):
    path = tmp_path / "model.onnx"
    written(path, static(8), 8, outputs)
    assert any(requirement.on == "AMX" for requirement in requirements(Graph.open(path))) == needed
    monkeypatch.setattr(export.read.requires, "_has_amx", lambda: True)
    assert check(path).holds
    monkeypatch.setattr(export.read.requires, "installed", lambda package: "1.24.4")
    sentence = "this file needs onnxruntime 1.25 or newer on processors with AMX; this is 1.24.4"
    assert unmet(Graph.open(path)) == [sentence] * needed
    assert main(["check", str(path)]) == int(needed)


@pytest.mark.parametrize(("package", "version"), [("onnxruntime", "1.22.1"), ("onnx", "1.19.1")])
def test_older_versions_get_a_sentence(tmp_path, capsys, monkeypatch, package, version):
    path = tmp_path / "model.onnx"
    written(path, QATConfig(QuantSpec(2)), 4, 3)
    oldest = {"onnxruntime": "1.24", "onnx": "1.20"}[package]
    monkeypatch.setattr(export.read.versions, "installed", lambda name: version if name == package else "9.9")
    for command in (["check"], ["run", "--x", "1,2,3,4"], ["latency"]):
        assert main([*command, str(path)]) == 1
        assert f"this file needs {package} {oldest} or newer; this is {version}" in capsys.readouterr().err
    with pytest.raises(FileError, match="or newer; this is"):
        check(path)


def test_what_onnxruntime_says_of_its_sources_is_left_out(tmp_path):
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 21]> g (float[N, 4] x) => (float[N, 4] y) { y = Relu(x) }'
    )
    model.ir_version = 99
    with pytest.raises(FileError) as caught:
        export.read.runtime.session(model)
    assert str(caught.value).startswith("onnxruntime cannot load the model: Unsupported model IR version: 99")


def test_int8_weights_are_for_processors_with_vnni(tmp_path, capsys):
    """The same codes as UINT8, and a sentence wherever pairs of their products are cut off."""
    paths = {processor: tmp_path / f"{processor}.onnx" for processor in ("any", "vnni")}
    for processor, path in paths.items():
        report, model = written(path, static(8, power_of_two=True), 64, 32, processor=processor)
        assert report.proof.proven
        assert (report.unmet != []) == (processor == "vnni" and saturates())
    graphs = {processor: Graph.open(path) for processor, path in paths.items()}
    assert [graphs[p].packed["0.weight"].dtype for p in paths] == ["UINT8", "INT8"]
    signed = graphs["vnni"].packed["0.weight"].codes
    np.testing.assert_array_equal(signed, graphs["any"].packed["0.weight"].codes - 128)
    np.testing.assert_array_equal(signed, model[0].weight_quantizer.codes(model[0].weight).ravel())
    assert "VNNI" in [requirement.value for requirement in requirements(graphs["vnni"])]
    assert check(paths["any"]).holds
    found = check(paths["vnni"])
    assert found.holds == (not saturates())
    assert check(paths["vnni"], Setup(config=NO_INTEGER_KERNELS)).ok
    assert main(["check", str(paths["vnni"])]) == int(saturates())
    said = capsys.readouterr()
    sentence = (
        "needs a processor with VNNI: two INT8 products of 0/Gemm may not fit into 16 bits; here they are cut off"
    )
    assert (sentence in said.err) == saturates()


def test_a_processor_of_another_name_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"processor='amx' is not supported; expected one of any, vnni"):
        written(tmp_path / "model.onnx", static(8), 4, 3, processor="amx")


def test_transposed_convolutions_keep_int8(tmp_path):
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.ConvTranspose2d(3, 2, 3)), torch.randn(8, 2, 6, 6)
    path = tmp_path / "model.onnx"
    report = export_onnx(prepared(model, static(8, power_of_two=True), x), x, path)
    assert report.proof.proven
    packed = Graph.open(path).packed
    assert (packed["0.weight"].dtype, packed["2.weight"].dtype) == ("UINT8", "INT8")
    assert unmet(Graph.open(path)) == []


def test_activations_in_float_are_noticed_by_their_answers(tmp_path, capsys):
    path = tmp_path / "model.onnx"
    report, _ = written(path, QATConfig(QuantSpec(4, "per_group"), DYNAMIC), 64, 32, 8, flavor="ort")
    assert report.kernels.eight_bit
    assert "2 layers run as MatMulNBits, with 8-bit activations: yes" in str(report)
    found = check(path, NO_PREPACKING)
    assert not found.ok
    assert not found.kernels.eight_bit
    assert set(found.kernels.missing.values()) == {"MatMulNBits on float activations"}
    assert main(["check", str(path), "--config", "session.disable_prepacking=1"]) == 1
    assert "with 8-bit activations: no" in capsys.readouterr().out


def test_float_activations_that_were_asked_for_are_none_of_eight_bits(tmp_path):
    report, _ = written(tmp_path / "model.onnx", QATConfig(), 64, 8, flavor="ort")
    assert report.kernels.eight_bit is None


def test_rounding_in_blocks_is_that_of_the_forward_pass():
    torch.manual_seed(0)
    row = torch.randn(70)
    row[:32] = 0
    layer = prepared(nn.Linear(70, 2), QATConfig(QuantSpec(4, "per_group"), DYNAMIC), row[None])
    np.testing.assert_allclose(round_blocks(row.numpy(), 32), layer.input_quantizer(row[None])[0], rtol=2e-7)


def test_a_file_of_others_with_int8_products(tmp_path):
    """MatMul, weights (in, out), as other exporters write them."""
    text = """<ir_version: 10, opset_import: ["": 21]> g (float[N, 2] x) => (float[N, 3] y)
    <float s = {0.5}, uint8 z = {0}, int8 w = {127}> {
        q = QuantizeLinear(x, s, z)  d = DequantizeLinear(q, s, z)  y = Identity(d)
    }"""
    model = onnx.parser.parse_model(text)
    weight = onnx.numpy_helper.from_array(np.full((2, 3), 100, np.int8), "weight")
    model.graph.initializer.append(weight)
    del model.graph.node[2]
    model.graph.node.append(helper.make_node("DequantizeLinear", ["weight", "s"], ["factors"]))
    model.graph.node.append(helper.make_node("MatMul", ["d", "factors"], ["y"], name="product"))
    assert [str(r) for r in requirements(Graph(model)) if r.of == "processor"] == [
        "this file needs a processor with VNNI: two INT8 products of product may not fit into 16 bits"
    ]
