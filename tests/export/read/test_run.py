"""`python -m export run`: inputs by name."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from export import export_onnx
from export.__main__ import main
from qat_core import prepare


class Text(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.head = nn.Embedding(9, 4), nn.Linear(4, 2)

    def forward(self, input_ids, attention_mask, weight=None):
        words = self.words(input_ids) * attention_mask[..., None]
        return {"last_hidden_state": self.head(words), "pooled": words.mean(1) * (1 if weight is None else weight)}


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    torch.manual_seed(0)
    model, path = prepare(Text()).eval(), tmp_path_factory.mktemp("text") / "text.onnx"
    ids = torch.randint(0, 9, (3, 5))
    export_onnx(model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, path)
    return model, path


def test_numbers_for_inputs_by_their_names(text, capsys):
    model, path = text
    assert main(["run", str(path), "--input_ids", "1,2,3", "--attention_mask=1,1,0", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["outputs"]
    expected = model(torch.tensor([[1, 2, 3]]), torch.tensor([[1, 1, 0]]))
    assert list(found) == ["last_hidden_state", "pooled"]
    for name, y in expected.items():
        assert np.allclose(found[name], y.detach().numpy(), atol=1e-6)
    assert main(["run", str(path), "--input_ids", "1,2", "--attention_mask", "1,1"]) == 0
    assert [line.partition("]")[0] for line in capsys.readouterr().out.splitlines()] == [
        "last_hidden_state [1, 2, 2",
        "pooled [1, 4",
    ]


def test_arrays_from_a_file(text, tmp_path, capsys):
    model, path = text
    ids, mask = np.array([[1, 2], [3, 4]]), np.array([[1, 1], [1, 0]])
    np.savez(tmp_path / "inputs.npz", input_ids=ids, attention_mask=mask)
    assert main(["run", str(path), "--npz", str(tmp_path / "inputs.npz"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["outputs"]
    expected = model(torch.tensor(ids), torch.tensor(mask))["pooled"]
    assert np.allclose(found["pooled"], expected.detach().numpy(), atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--input_ids", "1,2"], "the input 'attention_mask' is missing; expected input_ids tensor(int64)"),
        (["--input_ids", "1", "--attention_mask", "1", "--words", "2"], "there is no input 'words'; expected"),
        (["--input_ids", "1.5", "--attention_mask", "1"], "--input_ids has [1.5]; expected int64"),
        (["--input_ids", "1,2", "--attention_mask", "1,1,1"], "the file takes"),
        (["--npz", "nothing.npz"], "cannot read nothing.npz"),
        (["--x", "1,2"], "2 inputs; expected --input_ids ... --attention_mask ... or --npz FILE"),
        ([], "the input 'input_ids' is missing"),
    ],
)
def test_inputs_that_do_not_fit_get_a_sentence(text, capsys, arguments, sentence):
    code = main(["run", str(text[1]), *arguments])
    assert code == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--input_ids"], ["--input_ids", "a"], ["1,2"]])
def test_a_line_that_cannot_be_read_is_a_wrong_question(text, capsys, arguments):
    with pytest.raises(SystemExit) as stop:
        main(["run", str(text[1]), *arguments])
    assert stop.value.code == 2


def test_other_commands_take_no_names(text, capsys):
    with pytest.raises(SystemExit):
        main(["check", str(text[1]), "--input_ids", "1"])
    assert "unrecognized arguments: --input_ids 1" in capsys.readouterr().err
