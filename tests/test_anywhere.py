"""What the page shows for running a file elsewhere runs: JavaScript in Node.js, C# where there is a compiler."""

import json
import shutil
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from app.chapters.onnxruntime import anywhere
from app.components.code import whole_file
from benchmarks.runtimes.node import node
from benchmarks.runtimes.versions import HOME
from export import export_onnx
from export.read.web import runtime
from qat_core import QATConfig, prepare

HERE = Path(anywhere.__file__).parent
PACKAGE = f"onnxruntime-node@{runtime.VERSION}"
OTHER_SYSTEMS = ("darwin", "win32")  # two thirds of 290 MB
XS = [0.5, -1.25, 3.0]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    torch.manual_seed(0)
    path, x = tmp_path_factory.mktemp("file") / "model.onnx", torch.randn(64, 1)
    model = torch.nn.Sequential(torch.nn.Linear(1, 16), torch.nn.ReLU(), torch.nn.Linear(16, 1))
    export_onnx(prepare(model, QATConfig()), x, path)
    return path


@pytest.fixture(scope="module")
def packages():
    """Where node_modules are; without scripts, which would fetch what a CPU has no use for."""
    folder = HOME / PACKAGE.replace("@", "-")
    if not folder.exists():
        HOME.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=HOME) as place:
            install = ["install", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", f"{place}/new", PACKAGE]
            try:
                done = subprocess.run([*runtime.npm(Path(place)), *install], capture_output=True, text=True, cwd=place)
            except OSError as error:
                pytest.skip(str(error))
            if done.returncode:
                pytest.skip(f"cannot install {PACKAGE}: {done.stderr.strip().rpartition(chr(10))[2]}")
            for system in OTHER_SYSTEMS:
                for unused in Path(place, "new").glob(f"node_modules/onnxruntime-node/bin/*/{system}"):
                    shutil.rmtree(unused)
            with suppress(OSError):  # another process was quicker
                Path(place, "new").rename(folder)
    return folder


def test_javascript_answers_as_python_does(file, packages, tmp_path):
    try:
        program = node()
    except OSError as error:
        pytest.skip(str(error))
    tmp_path.joinpath("node_modules").symlink_to(packages / "node_modules")
    shutil.copy(HERE / "anywhere.mjs", tmp_path)
    ask = f"import {{ answer }} from './anywhere.mjs'; console.log(JSON.stringify(await answer({str(file)!r}, {XS})));"
    command = [program, "--input-type=module", "--eval", ask]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == pytest.approx(anywhere.answer(str(file), XS), rel=1e-6, abs=1e-6)


@pytest.mark.skipif(not shutil.which("dotnet"), reason="there is no dotnet here to compile it")
def test_csharp_answers_as_python_does(file, tmp_path):
    subprocess.run(["dotnet", "new", "console", "--output", tmp_path], check=True, capture_output=True)
    subprocess.run(["dotnet", "add", tmp_path, "package", "Microsoft.ML.OnnxRuntime"], check=True, capture_output=True)
    call = f'Console.WriteLine(string.Join(",", Answer("{file}", new[] {{ {", ".join(f"{x}f" for x in XS)} }})));\n'
    source = (HERE / "anywhere.cs").read_text()
    comment, using, rest = source.split("\n", 2)
    tmp_path.joinpath("Program.cs").write_text(f"{comment}\n{using}\n{call}{rest}")
    done = subprocess.run(["dotnet", "run", "--project", tmp_path], capture_output=True, text=True)
    assert [float(y) for y in done.stdout.split(",")] == pytest.approx(anywhere.answer(str(file), XS), rel=1e-6)


@pytest.mark.parametrize("name", ["anywhere.mjs", "anywhere.cs"])
def test_ten_lines_are_enough(name):
    lines = [line for line in (HERE / name).read_text().splitlines() if line and not line.startswith("//")]
    assert len(lines) <= 10
    assert f"app/chapters/onnxruntime/{name}" in whole_file(HERE / name)
