"""`pip install .` in an environment of somebody's own: the library, and nothing but the library."""

import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import Distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
ROOMS = ("qat_core", "export")
ELSEWHERE = """
import sys, torch, export, qat_core
torch.set_num_threads(3)
assert all(module.__file__.startswith(sys.argv[1]) for module in (export, qat_core)), export.__file__
model = qat_core.prepare(torch.nn.Sequential(torch.nn.Linear(4, 3)), qat_core.QATConfig())
export.export_onnx(model, torch.randn(8, 4), "model.onnx")
assert torch.get_num_threads() == 3, "it is the user's to choose"
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pip has put the package. Built from a copy, since building leaves folders beside the sources."""
    sources, target = tmp_path_factory.mktemp("sources"), tmp_path_factory.mktemp("installed")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, sources)
    for name in (*ROOMS, "app"):
        shutil.copytree(ROOT / name, sources / name)
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index")
    subprocess.run([*pip, "--target", target, sources], check=True)
    return target


def test_the_library_is_installed_whole_and_alone(installed: Path) -> None:
    assert {path.name for path in installed.iterdir() if path.suffix != ".dist-info"} == set(ROOMS)
    for room in ROOMS:
        assert modules(installed / room) == modules(ROOT / room)
        assert (installed / room / "py.typed").exists()


def test_the_installed_library_works_from_anywhere(installed: Path, tmp_path: Path) -> None:
    def python(*arguments: str) -> None:
        command = [sys.executable, *arguments]
        subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": str(installed)}, check=True, stdout=subprocess.DEVNULL)

    python("-c", ELSEWHERE, str(installed))
    python("-m", "export", "check", "model.onnx")
    python("-m", "export", "pack", "check.pyz")
    assert zipfile.is_zipfile(tmp_path / "check.pyz")


def test_it_asks_for_a_part_of_what_the_space_installs(installed: Path) -> None:
    (metadata,) = installed.glob("*.dist-info")
    asked = {str(Requirement(line)) for line in Distribution.at(metadata).requires or ()}
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    offered = {str(Requirement(line.split("#")[0])) for line in lines if not line.startswith("#")}
    assert asked
    assert asked <= offered


def modules(room: Path) -> set[str]:
    return {str(path.relative_to(room)) for path in room.rglob("*") if path.suffix in (".py", ".js", ".html")}
