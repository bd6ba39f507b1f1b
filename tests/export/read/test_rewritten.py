"""Files that tools have rewritten since: what still answers is told apart from what does not, and from the original."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import compose, helper, numpy_helper
from torch import nn

from export import ReceiptError, check, export_onnx
from export.__main__ import main
from qat_core import QATConfig, QuantSpec
from tests.export.models import W4A8, prepared

OLD = Path(__file__).with_name("files") / "receipt_format_4.onnx"
POWERS = QATConfig(QuantSpec(power_of_two=True), QuantSpec.activation(power_of_two=True))


@pytest.fixture(scope="module", params=[QATConfig(), W4A8, POWERS], ids=["weights", "W4A8", "powers of two"])
def exported_once(tmp_path_factory, request):
    torch.manual_seed(0)
    path, x = tmp_path_factory.mktemp("once") / "model.onnx", torch.randn(16, 2)
    model = prepared(nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 3)), request.param, x)
    export_onnx(model, x, path)
    return path.read_bytes()


def change(path, edit):
    model = onnx.load(path)
    model = edit(model) or model
    path.write_bytes(model.SerializeToString())


def another_order(model):
    """Constants backwards; Linear layers' weights before their inputs."""
    tensors = list(model.graph.initializer)[::-1]
    del model.graph.initializer[:]
    model.graph.initializer.extend(tensors)
    nodes = sorted(model.graph.node, key=lambda node: node.op_type != "DequantizeLinear" or "weight" not in node.name)
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def other_names(model):
    def renamed(names):
        for place, name in enumerate(names):
            names[place] = f"renamed/{name}" if name else ""

    for node in model.graph.node:
        renamed(node.input)
        renamed(node.output)
        node.name = f"renamed/{node.name}"
    for value in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        value.name = f"renamed/{value.name}"


def another_opset(model):
    model.opset_import[0].version += 1


def one_ulp(model):
    (tensor,) = (t for t in model.graph.initializer if t.name == "2.weight_scale")
    moved = np.nextafter(numpy_helper.to_array(tensor), np.float32(np.inf))
    tensor.CopyFrom(numpy_helper.from_array(moved, tensor.name))


def behind_another(model):
    """Merged with a graph that gives its input on."""
    x, y = (helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["rows", 2]) for name in ("x", "y"))
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "before", [x], [y])
    before = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    merged = compose.merge_models(before, model, [("y", "input")], prefix1="before/")
    merged.metadata_props.extend(model.metadata_props[: not merged.metadata_props])
    return merged


def optimized(path, level):
    options = ort.SessionOptions()
    options.graph_optimization_level = level
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 4
    ort.InferenceSession(path.read_bytes(), options)
    if not onnx.load(path).metadata_props:
        pytest.skip("this onnxruntime saves no metadata")


def test_the_order_of_tensors_and_operators_changes_nothing(file, capsys):
    change(file, another_order)
    assert check(file).rewritten == ""
    assert main(["check", str(file)]) == 0
    assert "the receipt holds" in capsys.readouterr().out


@pytest.mark.parametrize("edit", [other_names, another_opset, behind_another])
def test_what_was_rewritten_and_answers_the_same_is_called_so(file, capsys, edit):
    change(file, edit)
    report = check(file)
    assert report.holds
    assert "was changed" in report.rewritten or "were changed" in report.rewritten
    assert main(["check", str(file)]) == 0
    said = capsys.readouterr().out
    assert "rewritten, answers kept" in said
    assert "receipt holds" not in said


@pytest.mark.parametrize(
    "level", [ort.GraphOptimizationLevel.ORT_ENABLE_BASIC, ort.GraphOptimizationLevel.ORT_ENABLE_ALL]
)
def test_what_onnxruntime_saved_optimized_answers_the_same(file, level):
    optimized(file, level)
    report = check(file)
    assert report.holds
    assert report.rewritten


def test_a_scale_that_moved_by_one_ulp_changes_answers_only_where_they_are_exact(file):
    proven = check(file).proof.proven
    change(file, one_ulp)
    if proven:
        with pytest.raises(ReceiptError, match="something beside the codes was changed"):
            check(file)
    else:
        assert check(file).rewritten.startswith("something beside the codes was changed")


def test_other_answers_are_refused_with_what_was_changed(file):
    def negative(model):
        (tensor,) = (t for t in model.graph.initializer if t.name == "2.weight_scale")
        tensor.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(tensor), tensor.name))

    change(file, negative)
    with pytest.raises(ReceiptError, match="something beside the codes was changed"):
        check(file)


def test_receipts_of_the_format_before_are_read(tmp_path, capsys):
    report = check(OLD)
    assert report.holds
    assert report.rewritten == ""
    assert report.levels[0].outputs == 8
    renamed = tmp_path / "renamed.onnx"
    renamed.write_bytes(OLD.read_bytes())
    change(renamed, other_names)
    assert check(renamed).rewritten
    assert main(["inspect", str(OLD)]) == 0
    assert main(["latency", str(OLD)]) == 0
