"""Layers that a call does not reach, and weights that something else than their layer reads."""

import io

import numpy as np
import onnx
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from export import check_parity, export_onnx
from export.read.runtime import run, session
from export.write.call import Call
from export.write.reference import reference
from qat_core import calibrate, prepare
from tests.export.models import W4, W4A8


class Given(nn.Module):
    """A forward handed in, with two layers and a table to use."""

    def __init__(self, forward):
        super().__init__()
        self.fc, self.other, self.words = nn.Linear(6, 6), nn.Linear(6, 6), nn.Embedding(9, 6)
        self.given = forward

    def forward(self, x):
        return self.given(self, x)


WAYS = {
    "dead": lambda m, x: (m.fc(x), m.other(x))[0],
    "never called": lambda m, x: m.fc(x),
    "read beside its layer": lambda m, x: F.linear(m.fc(x), m.fc.weight),
    "read alone": lambda m, x: F.linear(m.fc(x), m.other.weight, m.other.bias),
    "an answer": lambda m, x: (m.fc(x), m.fc.weight),
    "an answer, changed": lambda m, x: (m.fc(x), F.normalize(m.fc.weight)),
    "a table as head": lambda m, x: m.fc(x) @ m.words.weight.t(),
    "a product beside it": lambda m, x: m.fc(m.fc(x) @ m.fc.weight.T),
    "a bias": lambda m, x: m.fc(x) + m.fc.bias,
}


@pytest.mark.parametrize("config", [W4, W4A8], ids=["W4", "W4A8"])
@pytest.mark.parametrize("way", WAYS)
def test_the_file_answers_as_the_prepared_model(tmp_path, way, config):
    torch.manual_seed(0)
    x, path = torch.randn(5, 6), tmp_path / "m.onnx"
    model = calibrate(prepare(Given(WAYS[way]), config), [x]).eval()
    report = export_onnx(model, x, path)
    expected = model(x)
    expected = [expected] if isinstance(expected, torch.Tensor) else list(expected)
    for y, found in zip(expected, run(session(path), [x.numpy()]), strict=True):
        assert np.allclose(found, y.detach().numpy(), atol=1e-5)
    assert check_parity(model, path, torch.randn(8, 6)).ok
    names = [tensor.name for tensor in onnx.load(path).graph.initializer]
    assert len(set(names)) == len(names)
    assert report.in_float  # the table at least
    assert all(name in str(report) for name in report.in_float)


class OwnHead(nn.Module):
    """A table that is looked up and then multiplied with, by no layer."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(9, 6)

    def forward(self, ids):
        return F.linear(self.words(ids), self.words.weight)


def test_a_table_is_looked_up_and_read():
    torch.manual_seed(0)
    model, file = prepare(OwnHead()).eval(), io.BytesIO()
    assert not export_onnx(model, torch.randint(0, 9, (2, 4)), file).in_float
    assert check_parity(model, file, torch.randint(0, 9, (3, 5))).ok


def test_a_model_that_calls_no_quantized_layer_is_refused(tmp_path):
    model = prepare(Given(lambda m, x: x + 1)).eval()
    with pytest.raises(ValueError, match=r"Given calls none of its 3 quantized layers, 'fc' first"):
        export_onnx(model, torch.randn(5, 6), tmp_path / "m.onnx")


class Branches(nn.Module):
    """One branch hands its input through, as it is."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        return torch.cond(x.sum() > 0, lambda y: y.clone(), lambda y: y * 2, (self.fc(x),))


def test_both_branches_answer(tmp_path):
    torch.manual_seed(0)
    model, path, x = prepare(Branches()).eval(), tmp_path / "m.onnx", torch.rand(5, 4)
    export_onnx(model, x, path)
    for sign in (1, -1):
        assert check_parity(model, path, sign * x).ok
    (if_node,) = (node for node in onnx.load(path).graph.node if node.op_type == "If")
    assert all(graph.g.node for graph in if_node.attribute)


def test_bags_of_different_sizes_are_a_loop(tmp_path):
    class Bags(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.head = nn.EmbeddingBag(10, 8, mode="mean"), nn.Linear(8, 3)

        def forward(self, words, offsets):
            return self.head(self.words(words, offsets))

    inputs, path = (torch.randint(0, 10, (9,)), torch.tensor([0, 2, 5])), tmp_path / "m.onnx"
    model = prepare(Bags()).eval()
    assert export_onnx(model, inputs, path).ok
    assert check_parity(model, path, (torch.randint(0, 10, (9,)), torch.tensor([0, 1, 7]))).ok


def test_a_graph_of_torch_fx_is_exported_as_the_module_it_was_made_of():
    """As torchvision's feature extractors are; its copies are made of its graph alone."""
    torch.manual_seed(0)
    model = torch.fx.symbolic_trace(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)))
    x = torch.randn(3, 4)
    prepared = calibrate(prepare(model, W4A8), [x]).eval()
    file = io.BytesIO()
    assert export_onnx(prepared, x, file).ok
    assert check_parity(prepared, file, torch.randn(5, 4)).ok


def test_weights_are_not_there_twice():
    """An export of a large model holds them once."""
    x = torch.randn(3, 4)
    model = calibrate(prepare(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), W4A8), [x])
    made = reference(model, Call.of(model, x))
    for own, other in zip(model.parameters(), made.model.parameters(), strict=True):
        assert own.data_ptr() == other.data_ptr()


@pytest.mark.parametrize("flavor", ["ort", "auto"])
def test_a_kernel_does_not_keep_what_others_read(flavor):
    """MatMulNBits has its weight in blocks that nobody else can read."""
    x, file = torch.randn(5, 6), io.BytesIO()
    model = prepare(Given(lambda m, x: m.other(F.linear(m.fc(x), m.fc.weight)))).eval()
    report = export_onnx(model, x, file, flavor=flavor)
    assert check_parity(model, file, torch.randn(8, 6)).ok
    if flavor == "ort":
        assert report.kernels.slow["fc"] == "something else than the layer reads its weight"
