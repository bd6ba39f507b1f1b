"""flavor="auto": which form each layer gets, given what was measured, and that every mixture answers the same."""

import itertools
import json

import onnx
import pytest
import torch
from torch import nn

from export import check, export_onnx
from export.read.graph import Graph
from export.read.receipt import read
from export.read.speed import Choice, summary
from export.write import auto, exporter
from export.write.storage import FORMS
from qat_core import QATConfig, QuantSpec, calibrate, prepare

A8 = QuantSpec.activation()
GROUPS = QuantSpec(granularity="per_group", group_size=32)
DYNAMIC = QuantSpec(bits=8, granularity="per_group", group_size=32, dynamic=True)
WEIGHTS, STATIC, ROWS = QATConfig(GROUPS), QATConfig(activation=A8), QATConfig(GROUPS, DYNAMIC)


def mlp():
    return nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 8))


class Words(nn.Module):
    """A table, a recurrence, and a head of its own or the table again."""

    def __init__(self, tied=False):
        super().__init__()
        self.words, self.memory = nn.Embedding(40, 32), nn.GRU(32, 32, batch_first=True)
        self.head = nn.Linear(32, 40, bias=False)
        if tied:
            self.head.weight = self.words.weight

    def forward(self, words):
        return self.head(self.memory(self.words(words))[0])


def example(network):
    torch.manual_seed(0)
    return torch.randint(40, (3, 5)) if isinstance(network, Words) else torch.randn(3, 32)


def ready(network, config):
    x = example(network)
    return calibrate(prepare(network, config), [x]).eval(), x


@pytest.fixture
def measured(monkeypatch):
    """Times by form and layer instead of real ones; answers which layers had which form when they were traced."""

    def install(times, as_quick=True):
        queue = itertools.cycle(times)  # each pass measures all of them

        def fake(proto, inputs, names):
            return next(queue)

        monkeypatch.setattr(auto, "_measured", fake)
        monkeypatch.setattr(auto, "_is_as_quick", lambda *_: as_quick)

    return install


def chosen(network, config, path):
    model, x = ready(network, config)
    return {c.layer: c.form for c in export_onnx(model, x, path, flavor="auto").choices}


def test_each_layer_gets_its_quickest_form(measured, tmp_path):
    measured([{"0": 3.0, "2": 1.0}, {"0": 2.0, "2": 2.0}, {"0": 1.0, "2": 3.0}, {"0": 1.5, "2": 2.5}])
    assert chosen(mlp(), WEIGHTS, tmp_path / "m.onnx") == {"0": "ort", "2": "qdq"}


def test_of_forms_that_take_as_long_the_smallest_is_taken(measured, tmp_path):
    measured([{"0": 1.0, "2": 1.0}, {"0": 0.97, "2": 0.5}, {"0": 0.96, "2": 0.49}, {"0": 0.951, "2": 0.48}])
    assert chosen(mlp(), WEIGHTS, tmp_path / "m.onnx") == {"0": "qdq", "2": "int8"}


def test_a_form_that_does_not_run_is_not_taken(measured, tmp_path):
    measured([{"0": 1.0, "2": 1.0}, {}, {"2": 0.1}, {}])
    assert chosen(mlp(), WEIGHTS, tmp_path / "m.onnx") == {"0": "qdq", "2": "ort"}


def test_the_slowest_of_several_passes_is_forgotten(measured, tmp_path):
    slow, float32 = {"0": 9.0, "2": 9.0}, {"0": 2.0, "2": 2.0}
    quick = {"0": 1.0, "2": 1.0}
    measured([slow, slow, slow, float32, quick, slow, slow, float32])
    assert chosen(mlp(), WEIGHTS, tmp_path / "m.onnx") == {"0": "qdq", "2": "qdq"}


def test_a_mixture_that_is_slower_than_float_is_not_written(measured, tmp_path):
    measured([{"0": 3.0, "2": 1.0}, {"0": 2.0, "2": 2.0}, {"0": 1.0, "2": 3.0}, {"0": 1.5, "2": 2.5}], as_quick=False)
    assert chosen(mlp(), WEIGHTS, tmp_path / "m.onnx") == {"0": "float", "2": "float"}


def test_a_file_in_float_says_so(measured, tmp_path):
    measured([{"0": 3.0, "2": 3.0}, {"0": 3.0, "2": 3.0}, {"0": 3.0, "2": 3.0}, {"0": 1.0, "2": 1.0}])
    model, x = ready(mlp(), WEIGHTS)
    report = export_onnx(model, x, tmp_path / "m.onnx", flavor="auto")
    assert "none of 2 layers has a form smaller than float32 that is as quick here" in str(report)


def test_behind_codes_nothing_is_in_float(tmp_path):
    model, x = ready(mlp(), STATIC)
    report = export_onnx(model, x, tmp_path / "m.onnx", flavor="auto")
    assert all(set(choice.milliseconds) == {"qdq", "packed"} for choice in report.choices)


def test_a_table_stays_small_where_that_is_next_to_nothing_of_a_call(measured, tmp_path):
    slow = {"memory": 99.0, "head": 1.0}
    measured([{"words": 1.0, **slow}, {"words": 0.9, **slow}, {"words": 1.0, **slow}, {"words": 0.1, **slow}])
    assert chosen(Words(), WEIGHTS, tmp_path / "m.onnx")["words"] == "qdq"


def test_layers_that_share_a_weight_share_its_form(measured, tmp_path):
    rest = {"memory": 1.0}
    qdq, int8, float32 = (
        {"words": words, "head": head, **rest} for words, head in ((9.0, 1.0), (1.0, 5.0), (2.0, 2.0))
    )
    measured([qdq, int8, float32])
    forms = chosen(Words(tied=True), WEIGHTS, tmp_path / "m.onnx")
    assert forms["words"] == forms["head"] == "float"


def test_what_was_measured_stands_in_the_report_and_in_the_receipt(tmp_path):
    model, x = ready(mlp(), ROWS)
    report = export_onnx(model, x, tmp_path / "m.onnx", flavor="auto")
    assert [choice.layer for choice in report.choices] == ["0", "2"]
    assert summary(report.choices) in str(report)
    assert all(choice.form in choice.milliseconds for choice in report.choices)
    settings = read(onnx.load(tmp_path / "m.onnx"))["settings"]
    assert settings["flavor"] == "auto"
    assert [Choice(**entry) for entry in settings["choices"]] == list(report.choices)
    assert json.dumps(report.as_dict())
    assert check(tmp_path / "m.onnx").holds


def test_a_choice_in_words():
    assert str(Choice("a", "ort", {"qdq": 2.0, "ort": 0.5})) == "a as ort 0.5 ms (qdq 2 ms)"
    assert str(Choice("", "qdq", {})) == "the model as qdq"
    assert summary([Choice("a", "ort", {}), Choice("b", "ort", {}), Choice("c", "float", {})]).startswith(
        "of 3 layers 2 as ort, 1 as float"
    )


@pytest.mark.parametrize("forms", itertools.product(FORMS, FORMS), ids="-".join)
def test_every_mixture_answers_the_same(forms, monkeypatch, tmp_path):
    model, x = ready(mlp(), WEIGHTS)
    picked = [Choice(name, form, {}) for name, form in zip(("0", "2"), forms, strict=True)]
    monkeypatch.setattr(exporter, "choose", lambda *_: picked)
    report = export_onnx(model, x, tmp_path / "m.onnx", flavor="auto")
    assert report.ok
    assert check(tmp_path / "m.onnx").holds
    packed = set(Graph.open(tmp_path / "m.onnx").packed)
    assert packed == {f"{choice.layer}.weight" for choice in picked if choice.form != "float"}


@pytest.mark.parametrize("tied", [False, True])
def test_recurrence_and_tables_in_float_answer_the_same(tied, monkeypatch, tmp_path):
    model, x = ready(Words(tied), WEIGHTS)
    picked = [Choice(name, "float", {}) for name in ("words", "memory", "head")]
    monkeypatch.setattr(exporter, "choose", lambda *_: picked)
    assert export_onnx(model, x, tmp_path / "m.onnx", flavor="auto").ok
    assert not Graph.open(tmp_path / "m.onnx").packed


def test_it_chooses_the_storage_itself(tmp_path):
    model, x = ready(mlp(), STATIC)
    with pytest.raises(ValueError, match="expected storage=None"):
        export_onnx(model, x, tmp_path / "m.onnx", flavor="auto", storage="int8")
