"""Paths, bytes and open files; and what happens to them when something is wrong."""

import io

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

import export.read.files
from export import FileError, audit, check, check_parity, export_onnx
from export.read.files import load, write, writing
from qat_core import prepare


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A model, its example and the path of its file."""
    torch.manual_seed(0)
    model, x = prepare(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))).eval(), torch.randn(4, 4)
    path = tmp_path_factory.mktemp("files") / "model.onnx"
    export_onnx(model, x, path)
    return model, x, path


def test_an_open_file_gets_the_bytes_that_a_path_would(exported, tmp_path):
    model, x, path = exported
    memory = io.BytesIO()
    export_onnx(model, x, memory)
    with (tmp_path / "open.onnx").open("wb") as file:
        export_onnx(model, x, file)
        assert not file.closed
    assert memory.getvalue() == (tmp_path / "open.onnx").read_bytes() == path.read_bytes()


def test_bytes_and_open_files_are_read_as_paths_are(exported):
    model, x, path = exported
    data = path.read_bytes()
    with path.open("rb") as file:
        for source in (data, io.BytesIO(data), file):
            assert check(source) == check(path)
            assert audit(source) == audit(path)
            assert check_parity(model, source, x).ok


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        (b"no model", "the model is not a whole ONNX file: 8 bytes"),
        (b"", "the model is not an ONNX model: 0 bytes without a graph"),
        (io.StringIO("text"), "open as text; expected one opened with 'rb'"),
        (3, "cannot read a int; expected a path, bytes or an open binary file"),
    ],
)
def test_what_is_no_model_is_refused(source, sentence):
    with pytest.raises(FileError, match=sentence):
        load(source)


@pytest.mark.parametrize("path", ["a\0b.onnx", "a" * 300 + ".onnx"], ids=["no name", "long"])
def test_a_name_that_no_file_can_have_gets_a_sentence(path):
    with pytest.raises(FileError, match="cannot read a"):
        load(path)
    with pytest.raises(FileError, match="cannot write a"), writing(path):
        pass


def test_a_file_that_was_closed_is_refused():
    file = io.BytesIO()
    file.close()
    with pytest.raises(FileError, match="cannot write to a BytesIO: I/O operation on closed file"), writing(file):
        pass


def test_a_file_open_for_reading_or_as_text_is_refused(exported, tmp_path):
    model, x, path = exported
    with path.open("rb") as file, pytest.raises(FileError, match="expected a path or a file opened with 'wb'"):
        export_onnx(model, x, file)
    with pytest.raises(FileError, match="cannot write to a StringIO"), writing(io.StringIO()):
        pass


def test_nothing_is_written_to_an_open_file_when_the_block_fails():
    memory = io.BytesIO()
    with pytest.raises(FileError), writing(memory) as place:
        write(onnx.ModelProto(), place)
    assert memory.getvalue() == b""


def test_two_files_need_a_path(exported, monkeypatch):
    model, x, _ = exported
    monkeypatch.setattr(export.read.files, "EXTERNAL_DATA_FROM", 10)
    monkeypatch.setattr(export.read.files, "SMALLEST_EXTERNAL", 1)
    with pytest.raises(FileError, match="lies in two files; expected a path"):
        export_onnx(model, x, io.BytesIO())


def test_a_graph_that_onnx_refuses_is_a_sentence(tmp_path):
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Nonsense", ["x"], ["y"])], "g", [value], [value])
    with pytest.raises(FileError, match="is not a valid ONNX model: No Op registered for Nonsense"):
        write(helper.make_model(graph), tmp_path / "model.onnx")


class Token(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 100_000, bias=False)

    def forward(self, x):
        return self.head(x).argmax(-1)


def test_whole_numbers_are_compared_exactly(tmp_path):
    torch.manual_seed(0)
    model, x, path = prepare(Token()).eval(), torch.randn(64, 4), tmp_path / "token.onnx"
    assert export_onnx(model, x, path).outcome == "exact"
    proto = onnx.load(path)
    last = next(node for node in proto.graph.node if "output" in node.output)
    last.output[0] = "token"
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array(1, np.int64), "one"))
    proto.graph.node.append(helper.make_node("Add", ["token", "one"], ["output"]))
    report = check_parity(model, proto.SerializeToString(), x)
    assert not report.ok
    assert report.worst.code_mismatches == 64


@pytest.mark.parametrize("sizes", [(-1,), (8, -1), (2, -1, 4)])
def test_a_view_with_a_size_left_open_takes_other_batches(sizes):
    class View(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.fc = nn.Conv2d(1, 8, 3), nn.Linear(8 * 16, 10)

        def forward(self, x):
            return self.fc(torch.relu(self.conv(x)).view(x.size(0), *sizes).flatten(1))

    torch.manual_seed(0)
    model, file = prepare(View()).eval(), io.BytesIO()
    export_onnx(model, torch.randn(4, 1, 6, 6), file)
    x = torch.randn(7, 1, 6, 6)
    (y,) = ort.InferenceSession(file.getvalue()).run(None, {"x": x.numpy()})
    torch.testing.assert_close(torch.from_numpy(y), model(x), rtol=0, atol=1e-6)
