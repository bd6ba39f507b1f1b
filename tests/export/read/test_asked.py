"""`python -m export run` and the checker as others have them: from outside, with little installed."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from onnx import helper
from torch import nn

from export import export_onnx
from export.__main__ import main
from qat_core import prepare
from tests.export.read.edit import change, flip_one_code

ROOT = Path(__file__).resolve().parents[3]


def test_run_answers_as_onnxruntime(file, capsys):
    assert main(["run", str(file), "--x", "0.5,1.0,-2,3", "--json"]) == 0
    y = json.loads(capsys.readouterr().out)["y"]
    x = np.array([[0.5, 1.0], [-2, 3]], np.float32)
    np.testing.assert_array_equal(np.array(y, np.float32), ort.InferenceSession(file).run(None, {"input": x})[0])


@pytest.mark.parametrize("x", ["abc", "", "1,,2", "nan", "1,inf"])
def test_x_that_is_not_a_number_is_a_wrong_question(file, capsys, x):
    with pytest.raises(SystemExit) as stop:
        main(["run", str(file), "--x", x])
    assert stop.value.code == 2
    assert f"{x!r} is not a list of finite numbers" in capsys.readouterr().err


def test_too_few_numbers_for_a_row_is_a_wrong_question(file, capsys):
    assert main(["run", str(file), "--x", "1,2,3"]) == 2
    assert "3 numbers; expected a multiple of 2" in capsys.readouterr().err


class Mean(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 3)

    def forward(self, x):
        return self.layer(x).mean()


def test_run_answers_a_file_that_has_one_answer_for_all_rows(tmp_path, capsys):
    model, path = prepare(Mean()), tmp_path / "model.onnx"
    export_onnx(model, torch.randn(4, 2), path)
    assert main(["run", str(path), "--x", "1,2,3,4"]) == 0
    expected = model(torch.tensor([[1.0, 2.0], [3.0, 4.0]])).item()
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("1, 2, 3, 4 -> ")
    assert float(line.partition("-> ")[2]) == pytest.approx(expected, rel=1e-5)


def test_run_refuses_what_a_file_does_not_take(tmp_path, capsys):
    words, fixed = tmp_path / "words.onnx", tmp_path / "fixed.onnx"
    export_onnx(prepare(nn.Embedding(9, 2)), torch.zeros(4, 3, dtype=torch.int64), words)
    assert main(["run", str(words), "--x", "1,2,3"]) == 2
    assert "takes tensor(int64)" in capsys.readouterr().err
    export_onnx(prepare(nn.Linear(2, 2)), torch.randn(3, 2), fixed, dynamic_batch=False)
    assert main(["run", str(fixed), "--x", "1,2"]) == 2
    assert "the file takes [('tensor(float)', [3, 2])], given [('float32', (1, 2))]" in capsys.readouterr().err


def test_a_file_that_onnxruntime_cannot_load_gets_a_sentence(file, capsys):
    def with_an_operator_of_nobody(model):
        model.graph.node[-1].output[0] = "before"
        model.graph.node.append(helper.make_node("Foo", ["before"], [model.graph.output[0].name], domain="my.domain"))
        model.opset_import.append(helper.make_opsetid("my.domain", 1))

    change(file, with_an_operator_of_nobody)
    for command in (["run", "--x=1,2"], ["latency"]):
        assert main([command[0], str(file), *command[1:]]) == 1
        assert "onnxruntime cannot load" in capsys.readouterr().err


def test_the_command_line_from_another_process(file):
    done = subprocess.run([sys.executable, "-m", "export", "check", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stderr == ""


WITHOUT = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked}:
            raise ImportError(f"{{name}} is not installed here")

sys.meta_path.insert(0, Missing())
"""


BLOCKED = {"torch", "gradio", "rich", "onnxscript", "onnx_ir", "matplotlib", "sklearn", "safetensors"}


def run_without(blocked, code, folder):
    script = WITHOUT.format(blocked=blocked) + code
    command = [sys.executable, "-I", "-c", script]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)


def test_checking_needs_onnx_and_onnxruntime_alone(file, tmp_path):
    code = f"sys.path.insert(0, {str(ROOT)!r}); import export.__main__ as m; sys.exit(m.main(['check', {str(file)!r}]))"
    done = run_without(BLOCKED, code, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "the receipt holds" in done.stdout


def test_the_checker_is_one_small_file_that_needs_nothing_of_this_repository(file, tmp_path, capsys):
    checker = tmp_path / "check.pyz"
    assert main(["pack", str(checker)]) == 0
    assert f"python {checker} check" in capsys.readouterr().out
    assert checker.stat().st_size < 72 * 1024
    for arguments in (["check"], ["inspect", "--svg", str(tmp_path)], ["run", "--x=1,2"]):
        code = f"import runpy; sys.argv = {[str(checker), *arguments, str(file)]!r}; runpy.run_path({str(checker)!r})"
        done = run_without({*BLOCKED, "app", "qat_core", "benchmarks"}, code, tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
    change(file, flip_one_code)
    done = subprocess.run([sys.executable, checker, "check", file], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "integer codes were changed" in done.stderr
    done = subprocess.run([sys.executable, checker, "pack", "x.html"], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "a page is written by `python -m export pack`" in done.stderr
    assert main(["pack", str(tmp_path / "again.pyz")]) == 0
    assert (tmp_path / "again.pyz").read_bytes() == checker.read_bytes()
