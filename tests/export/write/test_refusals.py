"""What cannot be exported gets a sentence, and nothing is left of it."""

import errno
import os

import numpy as np
import pytest
import torch
from onnx import numpy_helper
from torch import nn
from torch.nn import functional as F

import export.write.exporter
from export import FileError, ParityError, export_onnx
from export.write.parity import why_not_alike
from export.write.qdq import to_qdq
from export.write.storage import stored_layers
from qat_core import convert, prepare
from tests.export.models import Around, lab_model


def test_a_model_that_was_not_prepared_is_refused(tmp_path):
    with pytest.raises(ValueError, match="Linear was not prepared"):
        export_onnx(nn.Linear(1, 1), torch.zeros(1, 1), tmp_path / "model.onnx")


@pytest.mark.parametrize("arguments", [{"flavor": "tensorrt"}, {"opset_version": 13}])
def test_an_unknown_argument_is_refused_with_its_value(tmp_path, arguments):
    ((name, value),) = arguments.items()
    with pytest.raises(ValueError, match=f"{name}={value!r} is not supported; expected"):
        export_onnx(lab_model(), torch.zeros(1, 1), tmp_path / "model.onnx", **arguments)


def test_a_path_that_cannot_be_written_is_refused_and_leaves_nothing(tmp_path):
    with pytest.raises(FileError, match=r"cannot write .*No such file or directory"):
        export_onnx(lab_model(), torch.zeros(1, 1), tmp_path / "nowhere" / "model.onnx")
    (tmp_path / "folder").mkdir()
    with pytest.raises(FileError, match=r"cannot write .*folder"):
        export_onnx(lab_model(), torch.zeros(1, 1), tmp_path / "folder")
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def held():
    """Compiled in a way that keeps the module that it was made of."""
    model = nn.Sequential(nn.Linear(4, 4))
    model.forward = torch.compile(model.forward, backend="eager")
    return model


REFUSED = {
    "unknown in": (nn.Linear(4, 4), {"x": torch.zeros(3, 4)}, r"do not fit QuantLinear\.forward: missing .* 'input'"),
    "array in": (nn.Linear(4, 4), [np.zeros((3, 4))], "the inputs are ndarray; expected a tensor"),
    "nothing in": (nn.Linear(4, 4), (), "do not fit QuantLinear.forward: missing a required argument: 'input'"),
    "text out": (Around(lambda layer, x: (layer(x), "text")), None, "Around answers output is a str; expected tensors"),
    "number out": (Around(lambda layer, x: {"y": layer(x), "n": 3}), None, "answers n is an? int; expected tensors"),
    "none out": (Around(lambda layer, x: None), None, "Around answers no tensor; expected tensors"),
    "random": (
        Around(lambda layer, x: F.dropout(layer(x), 0.5, training=True)),
        torch.ones(3, 4),
        "Around answers 'output' otherwise when it is called again with the same inputs",
    ),
    "no model": ({"weight": torch.zeros(3, 4)}, None, "the model is a dict; expected a torch.nn.Module"),
    "a forward held": (
        held(),
        None,
        "cannot be copied: the forward of 'model' is a function that holds the module itself",
    ),
    "float16": (nn.Linear(4, 4).half(), torch.zeros(3, 4).half(), r"layer 'model' is torch.float16; expected torch.f"),
    "float64": (nn.Linear(4, 4).double(), torch.zeros(3, 4).double(), "is torch.float64; expected torch.float32"),
    "bfloat16": (nn.Linear(4, 4).bfloat16(), torch.zeros(3, 4).bfloat16(), "is torch.bfloat16; expected torch.float32"),
    "no rows": (nn.Linear(4, 4), torch.zeros(0, 4), "the example has no rows; expected one at least"),
    "batch": (
        Around(lambda layer, x: layer(x) + torch.arange(3.0)[:, None]),
        None,
        "Around takes batches of 3 only: .*; expected one that takes any, or dynamic_batch=False",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_exported_gets_a_sentence(tmp_path, name):
    model, inputs, sentence = REFUSED[name]
    inputs = torch.zeros(3, 4) if inputs is None else inputs
    with pytest.raises(ValueError, match=sentence):
        export_onnx(prepare(model) if isinstance(model, nn.Module) else model, inputs, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dynamic_shapes", [None, {"x": {0: torch.export.Dim("batch")}}])
def test_a_size_that_the_file_does_not_take_is_refused_with_what_the_file_did(tmp_path, monkeypatch, dynamic_shapes):
    def problem(converted, proto, inputs):
        return "with inputs of (4, 4), onnxruntime says no"

    monkeypatch.setattr(export.write.exporter, "why_not_alike", problem)
    model = prepare(Around(lambda layer, x: layer(x)))
    with pytest.raises(ValueError, match=r"3.*with inputs of \(4, 4\), onnxruntime says no"):
        export_onnx(model, torch.zeros(3, 4), tmp_path / "model.onnx", dynamic_shapes=dynamic_shapes)


def test_why_a_file_answers_otherwise_is_said_with_the_shapes():
    model, other = (prepare(nn.Linear(4, 4)) for _ in range(2))
    x = torch.randn(3, 4)
    converted = convert(model)
    proto = to_qdq(converted, stored_layers(converted), [x], ["x"], ["y"], opset_version=21)
    assert why_not_alike(converted, proto, [x]) == ""
    said = why_not_alike(convert(other), proto, [x])
    assert said.startswith("with inputs of (3, 4), onnxruntime differs at optimization level")
    assert why_not_alike(converted, proto, [x[:2]]).startswith("with inputs of (2, 4), ")


def test_a_device_or_a_pipe_is_not_replaced_by_a_file(tmp_path):
    """Whoever may write to /dev would otherwise lose /dev/null."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(FileError, match=r"cannot write .*pipe: it is no file"):
        export_onnx(lab_model(), torch.zeros(1, 1), pipe)
    assert pipe.is_fifo()


def another_code(codes):
    codes[3, 5] = 1 if codes[3, 5] != 1 else 2
    return codes


@pytest.mark.parametrize(
    ("name", "edit"),
    [("2.weight", another_code), ("2.weight_scale", lambda scale: np.nextafter(scale, np.float32(np.inf)))],
)
def test_codes_that_stand_for_other_numbers_than_the_forward_pass_has_stop_the_export(
    tmp_path, monkeypatch, name, edit
):
    to_qdq = export.write.exporter.to_qdq

    def to_one_wrong_tensor(*args, **kwargs):
        proto = to_qdq(*args, **kwargs)
        (tensor,) = (t for t in proto.graph.initializer if t.name == name)
        tensor.CopyFrom(numpy_helper.from_array(edit(numpy_helper.to_array(tensor).copy()), name))
        return proto

    monkeypatch.setattr(export.write.exporter, "to_qdq", to_one_wrong_tensor)
    with pytest.raises(ParityError, match=r"codes '2.weight' of layer '2'"):
        export_onnx(lab_model(), torch.zeros(2, 1), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_forward_that_depends_on_the_numbers_is_refused_with_the_reason(tmp_path):
    class Branch(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 2)

        def forward(self, x):
            return self.layer(x) if x.sum() > 0 else self.layer(-x)

    with pytest.raises(ValueError, match=r"torch cannot export Branch: .*data-dependent"):
        export_onnx(prepare(Branch()), torch.ones(2, 3), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("layer", [nn.Dropout(0.5), nn.BatchNorm1d(2)], ids=lambda layer: type(layer).__name__)
def test_a_model_that_answers_otherwise_while_it_trains_is_refused(tmp_path, layer):
    model = prepare(nn.Sequential(nn.Linear(3, 2), layer)).train()
    with pytest.raises(
        ValueError, match=rf"in training mode, where {type(layer).__name__} '1' .*; expected model.eval"
    ):
        export_onnx(model, torch.ones(2, 3), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_full_leaves_the_file_that_was_there(tmp_path, monkeypatch):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"before")

    def half_written(model, target):
        target.write_bytes(model.SerializeToString()[:100])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(export.write.exporter, "write", half_written)
    with pytest.raises(FileError, match=r"cannot write .*model.onnx: No space left on device"):
        export_onnx(lab_model(), torch.zeros(1, 1), path)
    assert [(p, p.read_bytes()) for p in tmp_path.iterdir()] == [(path, b"before")]


def test_quantizers_that_are_switched_off_are_refused(tmp_path):
    model = lab_model()
    model[2].weight_quantizer.enabled = False
    with pytest.raises(ValueError, match=r"1 quantizers are switched off, 2.weight_quantizer first"):
        export_onnx(model, torch.zeros(2, 1), tmp_path / "model.onnx")


@pytest.mark.parametrize("rows", [1, 3])
def test_an_answer_to_one_row_with_other_axes_is_refused(tmp_path, rows):
    class Squeezed(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x):
            return self.fc(x).squeeze(0)

    model, x = prepare(Squeezed()).eval(), torch.randn(rows, 4)
    with pytest.raises(ParityError, match=r"Squeezed answers one row with other axes than .*dynamic_batch=False"):
        export_onnx(model, x, tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())
    assert export_onnx(model, x, tmp_path / "m.onnx", dynamic_batch=False).ok


def test_a_projection_behind_an_lstm_is_refused(tmp_path):
    class Projected(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm, self.head = nn.LSTM(4, 6, proj_size=3), nn.Linear(3, 2)

        def forward(self, x):
            return self.head(self.lstm(x)[0])

    with pytest.raises(ValueError, match="the LSTM 'lstm' has proj_size=3, which ONNX's LSTM has not; expected"):
        export_onnx(prepare(Projected()).eval(), torch.randn(2, 3, 4), tmp_path / "m.onnx")


def test_a_packed_sequence_is_refused(tmp_path):
    class Packs(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = nn.LSTM(4, 6, batch_first=True)

        def forward(self, x, lengths):
            packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
            return self.lstm(packed)[1][0]

    example = torch.randn(3, 5, 4), torch.tensor([5, 2, 3])
    with pytest.raises(
        ValueError, match="QuantLSTM is given PackedSequence; in a file it takes batches of padded sequen"
    ):
        export_onnx(prepare(Packs()).eval(), example, tmp_path / "m.onnx")
