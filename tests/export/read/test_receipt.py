"""The receipt holds where the file is whole and says what is wrong where it is not."""

import base64
import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import numpy_helper
from torch import nn

import export.read.files
from export import FileError, ParityError, ReceiptError, audit, check, check_parity, export_onnx, latency
from export.__main__ import main
from export.read.receipt import KEY, hash_graph
from qat_core import QATConfig, QuantSpec, prepare
from tests.export.models import prepared
from tests.export.read.edit import change, flip_one_code

PATTERN = {"dtype": "float32", "shape": [8, 2], "low": -1, "high": 1}
ONE = {"dtype": "float32", "shape": [1], "base64": "AAAAAA==", "answer": [8, 1]}
ROOT = Path(__file__).resolve().parents[3]


def edit_receipt(**entries):
    def edit(model):
        (entry,) = (p for p in model.metadata_props if p.key == KEY)
        entry.value = json.dumps({**json.loads(entry.value), **entries})

    return edit


def forge_receipt(**entries):
    """Edit and sign again, as somebody would who means to."""

    def edit(model):
        (entry,) = (p for p in model.metadata_props if p.key == KEY)
        receipt = {**json.loads(entry.value), **entries}
        del receipt["sha256"]
        digest = hashlib.sha256(json.dumps(receipt, sort_keys=True).encode()).hexdigest()
        entry.value = json.dumps({**receipt, "sha256": digest})

    return edit


def forge_sample(**entries):
    """Edit the first sample and sign."""

    def edit(model):
        (entry,) = (p for p in model.metadata_props if p.key == KEY)
        first, *others = json.loads(entry.value)["samples"]
        forge_receipt(samples=[{**first, **entries}, *others])(model)

    return edit


def write_receipt(text):
    def edit(model):
        (entry,) = (p for p in model.metadata_props if p.key == KEY)
        entry.value = text

    return edit


def move(name, by):
    """Add to every number of a tensor."""

    def edit(model):
        (tensor,) = (t for t in model.graph.initializer if t.name == name)
        array = numpy_helper.to_array(tensor)
        tensor.CopyFrom(numpy_helper.from_array(array + np.float32(by), name))

    return edit


def replace_an_operator(model):
    (node,) = (node for node in model.graph.node if node.op_type == "Relu")
    node.op_type = "Abs"


def grow_a_bias_and_sign(model):
    move("2.bias", 0.01)(model)
    forge_receipt(graph_sha256=hash_graph(model))(model)


def test_a_whole_file_holds(file, capsys):
    report = check(file)
    assert report.ok
    assert report.levels[0].outputs == 8 + 128 + 1
    assert report.rewritten == ""
    assert report.holds
    assert main(["check", str(file)]) == 0
    assert "the receipt holds" in capsys.readouterr().out


def test_the_receipt_remembers_numbers_exactly(file):
    (entry,) = (p for p in onnx.load(file).metadata_props if p.key == KEY)
    receipt = json.loads(entry.value)
    few, *_ = receipt["samples"]
    numbers = {k: np.frombuffer(base64.b64decode(few[k][0]["base64"]), "<f4") for k in ("inputs", "outputs")}
    y = ort.InferenceSession(file).run(None, {"input": numbers["inputs"].reshape(8, 2)})[0]
    np.testing.assert_allclose(numbers["outputs"], y.ravel(), rtol=1e-5)
    assert set(receipt["versions"]) == {"python", "torch", "onnx", "onnxruntime"}
    assert receipt["settings"]["layers"] == [{"names": ["0", "2"], "weight": {"bits": 4}}]


@pytest.mark.parametrize(
    ("edit", "error", "sentence"),
    [
        (flip_one_code, ReceiptError, "integer codes were changed"),
        (move("2.bias", 0.01), ReceiptError, "beside the codes was changed"),
        (move("0.weight_scale", 0.001), ReceiptError, "beside the codes was changed"),
        (replace_an_operator, ReceiptError, "beside the codes was changed"),
        (lambda m: m.ClearField("metadata_props"), ReceiptError, "has no receipt"),
        (edit_receipt(format=99), ReceiptError, "format 99"),
        (edit_receipt(tolerances=[1.0]), ReceiptError, "receipt was changed"),
        (edit_receipt(sha256=None), ReceiptError, "receipt was changed"),
        (forge_receipt(samples="x"), ReceiptError, "cannot be understood"),
        (forge_receipt(samples=[]), ReceiptError, "cannot be understood"),
        (forge_sample(inputs=[]), ReceiptError, "inputs are not the model's"),
        (forge_sample(inputs=[PATTERN | {"shape": [8, 3]}]), ReceiptError, "inputs are not the model's"),
        (forge_sample(inputs=[PATTERN | {"dtype": "int64"}]), ReceiptError, "inputs are not the model's"),
        (forge_sample(inputs=[PATTERN | {"shape": [2**50, 2]}]), ReceiptError, "cannot be understood"),
        (forge_sample(inputs=[PATTERN | {"shape": [5, 2]}]), ParityError, "answers in shapes"),
        (forge_receipt(tolerances=[float("nan")]), ReceiptError, "expected finite tolerances"),
        (forge_receipt(tolerances=[float("inf")]), ReceiptError, "expected finite tolerances"),
        (forge_receipt(tolerances=[1e-5] * 2), ReceiptError, "expected as many of each"),
        (forge_receipt(ties={"numbers": 0, "distance": float("nan")}), ReceiptError, "finite"),
        (forge_receipt(ties={"pairs": 3}), ReceiptError, "cannot be understood"),
        (forge_sample(outputs=[]), ReceiptError, "expected as many of each"),
        (write_receipt("[" * 100_000), ReceiptError, "cannot be understood"),
        (forge_sample(outputs=[ONE | {"base64": ""}]), ReceiptError, "be understood"),
        (forge_sample(outputs=[ONE | {"answer": [0]}]), ReceiptError, "1 of 0 numbers"),
    ],
)
def test_what_was_tampered_with_is_refused(file, capsys, edit, error, sentence):
    change(file, edit)
    with pytest.raises(error, match=sentence):
        check(file)
    assert main(["check", str(file)]) == 1
    assert sentence in capsys.readouterr().err


def test_other_outputs_than_promised_do_not_hold(file, capsys):
    change(file, grow_a_bias_and_sign)
    assert not check(file).ok
    assert main(["check", str(file)]) == 1
    captured = capsys.readouterr()
    assert "137 of 137 outputs differ" in captured.err
    assert "does NOT hold" in captured.out


@pytest.mark.parametrize("keep", [0, 1, 100, 0.5, 0.99])
def test_a_truncated_file_gets_a_sentence(file, capsys, keep):
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * keep) if keep < 1 else keep])
    with pytest.raises((FileError, ReceiptError)):
        check(file)
    assert main(["check", str(file)]) == 1
    assert str(file) in capsys.readouterr().err


def test_what_is_not_onnx_or_not_there_gets_a_sentence(tmp_path, capsys):
    text = tmp_path / "notes.onnx"
    text.write_text("this is not a model")
    for path in (text, tmp_path / "missing.onnx", tmp_path):
        for command in (["check"], ["inspect"], ["run", "--x", "1"]):
            assert main([*command, str(path)]) == 1
            assert str(path) in capsys.readouterr().err


def test_json_says_the_same(file, capsys):
    assert main(["check", str(file), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["ok"]
    assert [level["level"] for level in report["levels"]] == ["disable_all", "basic", "extended", "all"]
    assert main(["inspect", str(file), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["float_matrices"] == []
    assert found["receipt"]["settings"]["flavor"] == "qdq"
    change(file, flip_one_code)
    assert main(["check", str(file), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["ok"] is False


def test_large_inputs_and_outputs_are_promised_by_a_recipe_and_a_sample(tmp_path):
    torch.manual_seed(0)
    path, x = tmp_path / "model.onnx", torch.randn(2, 3, 40, 40)
    export_onnx(prepare(nn.Sequential(nn.Conv2d(3, 4, 3))), x, path)
    receipt = next(p.value for p in onnx.load(path).metadata_props if p.key == KEY)
    assert len(receipt) < 4096
    report = check(path)
    assert report.ok
    assert 64 < report.levels[0].outputs <= 64 + 128 + 16


DYNAMIC = QATConfig(activation=QuantSpec(granularity="per_group", group_size=32, bits=8, dynamic=True))
STATIC = QATConfig(activation=QuantSpec.activation())


@pytest.mark.parametrize(
    ("config", "options", "kernel"),
    [
        (QATConfig(), {}, None),
        (QATConfig(), {"flavor": "ort"}, "MatMulNBits"),
        (DYNAMIC, {"flavor": "ort"}, "MatMulNBits"),
        (STATIC, {"storage": "int8"}, "QGemm"),
    ],
)
def test_models_too_large_for_one_file_keep_their_data_beside(tmp_path, monkeypatch, config, options, kernel):
    monkeypatch.setattr(export.read.files, "EXTERNAL_DATA_FROM", 20_000)
    torch.manual_seed(0)
    x, path = torch.randn(16, 256), tmp_path / "large.onnx"
    model = prepared(nn.Sequential(nn.Linear(256, 256)), config, (x,))
    assert export_onnx(model, x, path, **options).ok
    assert sorted(p.name for p in tmp_path.iterdir()) == ["large.onnx", "large.onnx.data"]
    assert check_parity(model, path, torch.randn(33, 256)).ok
    report = check(path)
    assert report.ok
    assert (set(report.kernels.expected.values()) if report.kernels else {None}) == {kernel}
    assert audit(path).file_bytes > 256 * 128 > path.stat().st_size
    assert latency(path, rounds=2).rows[1].milliseconds > 0
    with torch.no_grad():
        model[0].weight[0] += 1
    assert check_parity(model, path, x).parting.tensor == "output"  # where they part is looked for in a copy
    (tmp_path / "large.onnx.data").unlink()
    with pytest.raises(FileError, match=r"large.onnx is not a valid ONNX model"):
        check(path)
