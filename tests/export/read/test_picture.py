"""Pictures of graphs: nothing overlaps, all runs downwards, whatever the names."""

import re
from itertools import pairwise
from xml.etree import ElementTree as ET

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from app.lab.models import cnn, mlp
from export import export_onnx
from export.__main__ import main
from export.read.draw.layout import Edge, layered
from export.read.draw.picture import graph_svg
from export.read.graph import Graph
from tests.export.models import W4, W4A8, Residual, prepared

SVG = "{http://www.w3.org/2000/svg}"


@st.composite
def graphs(draw):
    count = draw(st.integers(1, 14))
    boxes = {str(i): (draw(st.floats(10, 90)), draw(st.floats(10, 50))) for i in range(count)}
    pairs = st.tuples(st.integers(0, count - 1), st.integers(0, count - 1)).filter(lambda pair: pair[0] < pair[1])
    chosen = draw(st.lists(pairs, max_size=24, unique=True)) if count > 1 else []
    return boxes, [Edge(str(a), str(b), draw(st.sampled_from([1.0, 50.0]))) for a, b in chosen]


@given(graphs())
def test_boxes_never_touch_and_edges_run_down_past_them(graph):
    sizes, edges = graph
    layout = layered(sizes, edges)
    frames = {}
    for box, (x, y) in layout.centres.items():
        (width, height) = sizes[box]
        frames[box] = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
        assert -1e-6 <= frames[box][0] <= frames[box][2] <= layout.width + 1e-6
        assert -1e-6 <= frames[box][1] <= frames[box][3] <= layout.height + 1e-6
    names = list(frames)
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            assert not overlap(frames[a], frames[b])
    for edge, path in zip(edges, layout.paths, strict=True):
        assert path[0] == pytest.approx((layout.centres[edge.source][0], frames[edge.source][3]))
        assert path[-1] == pytest.approx((layout.centres[edge.target][0], frames[edge.target][1]))
        assert all(above[1] < below[1] for above, below in pairwise(path))
        for (x, top), (_, bottom) in zip(path[1:-1:2], path[2:-1:2], strict=True):  # straight past a layer
            assert not any(overlap((x, top, x, bottom), frame) for frame in frames.values())


def overlap(a, b):
    return a[0] < b[2] - 1e-6 and b[0] < a[2] - 1e-6 and a[1] < b[3] - 1e-6 and b[1] < a[3] - 1e-6


CASES = {
    "MLP": (mlp(), W4, (1,), ["Gemm", "Relu"] * 2 + ["Gemm"]),
    "CNN": (cnn(), W4A8, (1, 8, 8), ["Conv", "Relu", "Conv", "Relu", "MaxPool", "Conv", "Relu", "Reshape", "Gemm"]),
    "residual": (Residual(), W4, (8,), ["Gemm", "Relu", "Gemm", "Relu", "Gemm", "Add", "Gemm"]),
}


@pytest.mark.parametrize("kind", CASES)
def test_every_operator_and_every_tensor_of_codes_has_a_box(tmp_path, kind):
    model, config, shape, operators = CASES[kind]
    path, x = tmp_path / "model.onnx", torch.randn(4, *shape)
    export_onnx(prepared(model, config, (x,)), x, path)
    text = graph_svg(Graph.open(path), "model.onnx")
    svg = ET.fromstring(text)
    titles = {name: [group.find(f"{SVG}text").text for group in svg.iter(f"{SVG}g") if group.get("class") == name]
              for name in ("op", "qdq", "codes", "float", "end")}  # fmt: skip
    stored = onnx.load(path)
    assert titles["op"] == operators
    assert sorted(titles["qdq"]) == sorted(n.op_type for n in stored.graph.node if "quantize" in n.op_type.lower())
    assert len(titles["codes"]) == sum(t.name.endswith(".weight") for t in stored.graph.initializer) * (
        2 if config is W4A8 else 1
    )
    assert titles["float"] == []
    assert titles["end"] == [stored.graph.input[0].name, "output"]
    assert svg.find(f"{SVG}title").text == "The graph of model.onnx"
    assert f"{operators[0]}" in svg.find(f"{SVG}desc").text
    assert not re.search(r"(href|url|src|script)\b", text)


def test_names_cannot_break_out_of_the_picture():
    name = '</text><script>alert("1")</script>\x00\ud800'.encode("utf-8", "replace").decode()
    weight = numpy_helper.from_array(np.zeros((2, 2), np.float32), name)
    node = helper.make_node("MatMul", ["x", name], ["y"], name=name)
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 2]) for n in ("x", "y")]
    model = helper.make_model(helper.make_graph([node], "g", values[:1], values[1:], [weight]))
    text = graph_svg(Graph(model), name)
    assert "<script" not in text
    svg = ET.fromstring(text)
    assert {element.tag for element in svg.iter()} <= {
        SVG + tag for tag in ("svg", "title", "desc", "style", "rect", "g", "text", "path", "polygon")
    }
    assert [g.get("class") for g in svg.iter(f"{SVG}g") if g.get("class") == "float"] == ["float"]


def test_inspect_draws_into_a_folder(tmp_path, capsys):
    path, x = tmp_path / "model.onnx", torch.randn(4, 1)
    export_onnx(prepared(mlp(), W4, (x,)), x, path)
    assert main(["inspect", str(path), "--svg", str(tmp_path / "pictures")]) == 0
    names = ["model.graph.svg", *(f"model.{n}.weight.svg" for n in (0, 2, 4))]
    assert [p.name for p in sorted((tmp_path / "pictures").iterdir())] == sorted(names)
    for picture in (tmp_path / "pictures").iterdir():
        assert ET.parse(picture).getroot().find(f"{SVG}desc").text
    assert main(["inspect", str(path), "--svg", str(path)]) == 1
    assert "cannot write" in capsys.readouterr().err
