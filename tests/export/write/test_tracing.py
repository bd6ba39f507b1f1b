"""The short way to a graph: the same graph as torch.onnx.export's, for as long as torch can be asked so."""

import gc
import inspect

import onnx
import onnxscript
import pytest
import torch
from packaging.version import Version
from torch import nn

from export.write import torch_private, tracing
from export.write.qdq import to_qdq
from export.write.stand_ins import with_stand_ins
from export.write.storage import stored_layers
from qat_core import convert
from tests.export.models import W4, W4A8, Lookup, Tagger, prepared


class Asked(nn.Module):
    """Answers otherwise while it is exported."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x):
        y = self.layer(x)
        return -y if torch.onnx.is_in_onnx_export() else y


class WritesInPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x):
        return self.layer(x).relu_()


def mlp():
    return nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))


def cnn():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 2))


def pooled():
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 2, 3, 2, padding=1))


ROWS, IMAGES, WORDS = (torch.randn(5, 3),), (torch.randn(2, 3, 8, 8),), (torch.randint(10, (2, 5)),)
ONCE, TWICE = False, True
asks_privately = pytest.mark.skipif(
    Version(torch.__version__) < Version("2.11"), reason="an older torch is asked in its public way alone"
)
MODELS = [  # and how often they are traced
    (mlp, W4, ROWS, ONCE),
    (mlp, W4A8, (torch.randn(1, 3),), ONCE),
    (cnn, W4A8, IMAGES, ONCE),  # flatten
    (pooled, W4A8, IMAGES, ONCE),  # of any height and width, of which torch asserts something
    (Tagger, W4, WORDS, ONCE),
    (Lookup, W4A8, (torch.randn(2, 4, 8), torch.randn(2, 6, 8)), TWICE),
    (Asked, W4, ROWS, ONCE),
    (WritesInPlace, W4, ROWS, TWICE),
]


@pytest.fixture
def traced_again(monkeypatch):
    """One entry for each program that was traced a second time."""
    again, run_decompositions = [], torch.export.ExportedProgram.run_decompositions

    def counted(program, *args):
        again.append(program)
        return run_decompositions(program, *args)

    monkeypatch.setattr(torch.export.ExportedProgram, "run_decompositions", counted)
    return again


@asks_privately
@pytest.mark.parametrize(("build", "config", "inputs", "twice"), MODELS)
def test_the_graph_is_that_of_the_public_exporter(monkeypatch, traced_again, build, config, inputs, twice):
    converted = convert(prepared(build(), config, inputs))
    layers, names = (
        stored_layers(converted, opset_version=21),
        (["x", "memory"][: len(inputs)], ["y", "weights"][: 2 if build is Lookup else 1]),
    )
    batches = tuple(dict.fromkeys((0, 2, 3) if build is pooled else (0,), torch.export.Dim.AUTO) for _ in inputs)
    settings = {"opset_version": 21, "shapes": None if build is Asked else batches}
    quick = to_qdq(converted, layers, inputs, *names, **settings)
    assert bool(traced_again) == twice
    monkeypatch.setattr(tracing, "quick_graph", lambda *_: None)
    assert numbered(quick) == numbered(to_qdq(converted, layers, inputs, *names, **settings))


def numbered(model):
    """The model with numbers for the names of what is computed: torch's second trace calls a flatten a view."""
    computed = [name for node in model.graph.node for name in node.output]
    made = [constant.name for constant in model.graph.initializer if constant.name.startswith("val_")]
    names = {name: str(n) for n, name in enumerate(computed + made)} | {o.name: o.name for o in model.graph.output}
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    for constant in copy.graph.initializer:
        constant.name = names.get(constant.name, constant.name)
    for node in copy.graph.node:
        node.name = ""
        for values in (node.input, node.output):
            values[:] = [names.get(name, name) for name in values]
    del copy.graph.value_info[:]
    return copy


@asks_privately
def test_this_torch_can_be_asked_and_its_table_is_made_once():
    converted = convert(prepared(mlp(), W4, ROWS))
    exporting, _ = with_stand_ins(converted, stored_layers(converted))
    torch_private._registry.cache_clear()
    for _ in range(2):
        assert torch_private.quick_graph(exporting, ROWS, None, 21) is not None
    assert torch_private._registry.cache_info().misses == 1


def test_the_table_is_torchs_own():
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    quick, slow = (
        torch_private._registry(23, frozenset(torch_private.TRANSLATIONS.items())),
        ONNXRegistry.from_torchlib(opset_version=23),
    )
    ours = {operator.name() for operator in torch_private.TRANSLATIONS}
    assert ours <= quick.functions.keys()
    assert quick.functions.keys() - ours == slow.functions.keys() - ours
    for name in slow.functions.keys() - ours:
        found, expected = ([(f.onnx_function, f.signature) for f in t.functions[name]] for t in (quick, slow))
        assert str(found) == str(expected)
    assert isinstance(inspect.getattr_static(onnxscript.TracedOnnxFunction, "function_ir").fget, type(mlp))
    assert slow.functions["aten::relu"][0].onnx_function.function_ir.name == "aten_relu"


def test_a_torch_that_cannot_be_asked_so_is_asked_in_its_public_way(monkeypatch):
    def renamed(*_):
        raise AttributeError("ONNXRegistry has no attribute 'from_torchlib'")

    converted = convert(prepared(mlp(), W4, ROWS))
    layers = stored_layers(converted)
    expected = to_qdq(converted, layers, ROWS, ["x"], ["y"], opset_version=21)
    monkeypatch.setattr(torch_private, "_registry", renamed)
    assert to_qdq(converted, layers, ROWS, ["x"], ["y"], opset_version=21) == expected


@pytest.mark.parametrize("collects", [True, False])
def test_the_garbage_collector_pauses_and_is_left_as_it_was(monkeypatch, collects):
    during = []

    def fails(*_):
        during.append(gc.isenabled())
        raise torch.onnx.OnnxExporterError("no")

    monkeypatch.setattr(tracing, "quick_graph", fails)
    (gc.enable if collects else gc.disable)()
    try:
        with pytest.raises(ValueError, match="cannot export"):
            tracing.trace(mlp(), ROWS, opset_version=21, shapes=None)
        assert (during, gc.isenabled()) == ([False], collects)
    finally:
        gc.enable()
