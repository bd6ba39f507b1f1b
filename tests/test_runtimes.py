"""Six files of the matrix on the oldest and newest onnxruntime, and what this one fuses of the forms we count on."""

import re
import subprocess
import sys
from pathlib import Path

import onnxruntime as ort
import pytest
import torch
from torch import nn

from benchmarks.runtimes.versions import ROOT, VERSIONS, answers, folder_of
from benchmarks.runtimes.zoo import SIX
from benchmarks.sections.runtimes import in_javascript, summary, written
from export import export_onnx
from export.__main__ import main
from export.read.runtime import optimized
from qat_core import QATConfig, QuantSpec
from tests.export.models import prepared

SUPPORTED = re.search(r"onnxruntime>=([\d.]+)", (ROOT / "requirements.txt").read_text())[1]
OLDEST = next(version for version in VERSIONS if version.startswith(SUPPORTED))
GROUPS = QuantSpec(4, "per_group")
DYNAMIC = QuantSpec(8, "per_group", group_size=32, dynamic=True)

FUSES_GEMM = (
    "it now fuses DequantizeLinear -> Gemm(transB=1) into MatMulNBits, which rounds activations to 8 bits and "
    "breaks flavor='qdq': write the product in another form in export/write/translations.py, and cap "
    "onnxruntime in requirements.txt and pyproject.toml until that is out"
)


def installed(*requirements):
    try:
        return folder_of(*requirements)
    except OSError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def files():
    return Path(written(SIX).name)


@pytest.mark.parametrize("version", [OLDEST, ort.__version__])
def test_six_files_answer_the_same(files, version):
    folder = None if version == ort.__version__ else installed(f"onnxruntime=={version}")
    found = summary(answers([sys.executable], folder, files, "onnxruntime"))
    assert found["loaded"] == found["holds"] == len(SIX)
    assert found["same"] + found["ties"] == len(SIX)
    assert found["ties"] <= 2  # the two that round activations with free scales: a processor may meet a tie there
    assert found["wrongly"] == []
    assert found["unpacked"] == 1  # the one whose activations MatMulNBits rounds


def test_six_files_in_webassembly(files):
    """All answer the same but the one whose activations MatMulNBits should round, and its receipt says so."""
    try:
        found = summary(rows := in_javascript(files))
    except OSError as error:
        pytest.skip(str(error))
    rounded = "ort-w4-dynamic32"
    assert found["loaded"] == len(SIX)
    assert found["same"] + found["ties"] == found["holds"] == len(SIX) - 1
    assert (found["otherwise"], found["crashed"], found["wrongly"]) == (1, 0, [])
    assert all("this file needs a processor with AVX2" in row["receipt"] for row in rows if row["file"] == rounded)
    assert all(row["receipt"] == "holds" for row in rows if row["file"] != rounded)


def test_old_versions_get_a_sentence_of_the_packed_checker(files, tmp_path):
    folder, checker = installed("onnxruntime==1.22.1", "onnx==1.19.1"), tmp_path / "check.pyz"
    assert main(["pack", str(checker)]) == 0
    said = {}
    for name in SIX:
        command = [sys.executable, checker, "check", files / f"{name}.onnx"]
        done = subprocess.run(command, env={"PYTHONPATH": str(folder)}, capture_output=True, text=True, cwd=tmp_path)
        said[name] = (done.returncode, (done.stdout + done.stderr).strip().splitlines()[-1])
    refused = {name: sentence for name, (code, sentence) in said.items() if code}
    assert list(refused) == ["mlp-w2-per_channel"]
    assert refused["mlp-w2-per_channel"].endswith("this file needs onnx 1.20 or newer; this is 1.19.1")
    assert all("the receipt holds" in sentence for code, sentence in said.values() if not code)


@pytest.mark.parametrize(
    ("config", "options", "counted_on", "never", "what_to_do"),
    [
        (QATConfig(GROUPS), {}, ["FusedGemm", "Gemm"], "MatMulNBits", FUSES_GEMM),
        (QATConfig(QuantSpec(4)), {}, ["FusedGemm", "Gemm"], "MatMulNBits", FUSES_GEMM),
        (
            QATConfig(QuantSpec(8), QuantSpec.activation()),
            {},
            ["QGemm", "QGemm"],
            "Gemm",
            "it no longer makes QGemm of QuantizeLinear, Gemm and INT32 biases, which 8-bit files are quick by: look "
            "at the optimized graph, and change the form in export/read/kernels.py and export/write/qdq.py",
        ),
        (
            QATConfig(GROUPS, DYNAMIC),
            {"flavor": "ort"},
            ["MatMulNBits", "MatMulNBits"],
            "Gemm",
            "it rewrites MatMulNBits: look at the optimized graph, and change export/write/matmul_nbits.py",
        ),
    ],
    ids=["flavor qdq, groups", "flavor qdq, channels", "8-bit activations", "flavor ort"],
)
def test_onnxruntime_fuses_what_we_count_on_and_nothing_else(tmp_path, config, options, counted_on, never, what_to_do):
    """The canary: a new onnxruntime that treats our forms otherwise fails here, and says what to do."""
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64)), torch.randn(64, 64)
    path = tmp_path / "model.onnx"
    export_onnx(prepared(model, config, x), x, path, **options)
    running = [node.op_type for node in optimized(path).graph.node]
    complaint = f"onnxruntime {ort.__version__} runs {running}: {what_to_do}"
    assert [op_type for op_type in running if op_type in counted_on] == counted_on, complaint
    assert never not in running, complaint
