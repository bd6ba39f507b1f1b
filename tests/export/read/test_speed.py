"""One sentence on how fast a file is, and a refusal that names what costs."""

import io
import weakref

import numpy as np
import pytest
import torch
from torch import nn

import export.read.costs
from export import Speed, SpeedError, export_onnx
from export.read.costs import UNPACKS, by_layer, layer_of, layers_of
from export.read.graph import Graph
from export.read.latency import as_float
from export.read.runtime import Setup, run, session
from export.read.speed import compared
from qat_core import QATConfig, QuantSpec, convert, prepare

WIDTH = 512
DYNAMIC = QuantSpec(bits=8, granularity="per_group", group_size=32, dynamic=True)
GROUPS = QuantSpec(granularity="per_group", group_size=32)


def unpacked_in_every_call():
    """One row through two large layers of four bits: all the time goes into their weights."""
    torch.manual_seed(0)
    layers = {"first": nn.Linear(WIDTH, WIDTH), "act": nn.ReLU(), "second": nn.Linear(WIDTH, WIDTH)}
    network = nn.Sequential()
    for name, layer in layers.items():
        network.add_module(name, layer)
    return prepare(network, QATConfig(GROUPS)).eval(), torch.randn(1, WIDTH)


def test_an_export_says_that_it_is_slower_and_why(tmp_path):
    report = export_onnx(*unpacked_in_every_call(), tmp_path / "m.onnx")
    assert report.speed.times < 0.8  # 0.1 to 0.2 on the machines seen
    assert set(report.speed.costly) == {"first", "second"}
    said = str(report.speed)
    assert said in str(report)
    assert "slower than float32" in said
    assert "first" in said
    assert "second" in said
    assert UNPACKS in said


def test_large_networks_are_timed_one_after_the_other(tmp_path, monkeypatch):
    """A session holds all weights in float."""
    sessions = []

    def only_session(*args, **kwargs):
        assert not any(opened() for opened in sessions)
        made = session(*args, **kwargs)
        sessions.append(weakref.ref(made))
        return made

    monkeypatch.setattr(export.read.costs, "LARGE", 0)
    monkeypatch.setattr(export.read.costs, "session", only_session)
    assert export_onnx(*unpacked_in_every_call(), tmp_path / "m.onnx").speed.times < 0.8
    assert len(sessions) == 4


def test_a_slower_file_is_refused_and_nothing_is_left(tmp_path):
    with pytest.raises(SpeedError, match=r"times as fast as float32, expected 1: .*(first|second).*, since their"):
        export_onnx(*unpacked_in_every_call(), tmp_path / "m.onnx", min_speedup=1.0)
    assert not list(tmp_path.iterdir())
    before = io.BytesIO()
    with pytest.raises(SpeedError):
        export_onnx(*unpacked_in_every_call(), before, min_speedup=1e9)
    assert not before.getvalue()


def test_a_file_that_is_fast_enough_is_written(tmp_path):
    report = export_onnx(*unpacked_in_every_call(), tmp_path / "m.onnx", min_speedup=1e-6)
    assert (tmp_path / "m.onnx").exists()
    assert report.speed.times > 0


@pytest.mark.parametrize("least", [0, -1, float("nan"), float("inf"), "quick"])
def test_a_speedup_is_a_positive_number(least, tmp_path):
    with pytest.raises(ValueError, match="min_speedup="):
        export_onnx(*unpacked_in_every_call(), tmp_path / "m.onnx", min_speedup=least)


@pytest.mark.parametrize(
    ("milliseconds", "in_float", "words"),
    [
        (1.0, 2.0, "2 times as fast as float32"),
        (2.0, 1.0, "2 times slower than float32"),
        (1.0, 0.95, "about as fast as float32"),
        (1.0, 1.04, "about as fast as float32"),
        (1.0, 13.71, "14 times as fast as float32"),
        (1.1499, 9.8499, "8.9 times as fast as float32"),  # 9.8 / 1.1, as the two are shown
        (123.4, 40.0, "3.1 times slower than float32"),
    ],
)
def test_a_ratio_in_words(milliseconds, in_float, words):
    assert compared(milliseconds, in_float) == words


def test_a_sentence_names_the_layers_that_cost_most_and_no_others():
    costly = {"a": 5.0, "b": 3.0, "c": 1.5, "d": 1.0, "e": 0.1}
    said = str(Speed(0.1, 10.6, 1.06, 1, costly, {"a": "x", "b": "x", "c": "y", "e": "z"}))
    assert (
        said
        == "10 times slower than float32 (11 against 1.1 ms on one thread here): a, b, c cost the most, since x and y"
    )


@pytest.mark.parametrize(
    ("node", "layer"),
    [
        ("0.weight/DQ", "0"),
        ("fused 0/Gemm", "0"),
        ("0/Gemm_token_12", "0"),
        ("0.input/Q", "0"),
        ("10.inner/MatMul_2", "10.inner"),
        ("10.other/Add", ""),
        ("Add_3", ""),
    ],
)
def test_an_operator_belongs_to_a_layer_by_its_name(node, layer):
    assert layer_of(node, {"0", "10.inner"}) == layer


def test_a_profile_has_every_layer(tmp_path):
    model, x = unpacked_in_every_call()
    export_onnx(model, x, tmp_path / "m.onnx")
    graph = Graph.open(tmp_path / "m.onnx")
    assert layers_of(graph) == {"first", "second"}
    found = by_layer(tmp_path / "m.onnx", [x.numpy()], Setup(), layers_of(graph))
    assert found["first"] > 0
    assert found["second"] > 0


def test_the_float_twin_rounds_no_activations(tmp_path):
    model = prepare(nn.Sequential(nn.Linear(64, 8)), QATConfig(GROUPS, DYNAMIC)).eval()
    x = torch.randn(4, 64)
    export_onnx(model, x, tmp_path / "m.onnx")
    twin = as_float(Graph.open(tmp_path / "m.onnx"))
    (y,) = run(session(twin), [x.numpy()])
    layer = convert(model)[0]
    expected = torch.nn.functional.linear(x, layer.weight, layer.bias).detach().numpy()
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
    assert "Round" not in {node.op_type for node in twin.graph.node}
