"""`make matrix`: the tests, browser apart, on every Python named with the oldest and the newest packages allowed.

pyproject.toml names the Pythons, requirements.txt the oldest of each package. One environment after another lies in
.venv-matrix, and goes when its tests have run: torch for Linux brings gigabytes of CUDA. A Python that this machine has
not got, and packages that no index has for it, are named and left out.

    python -m tests.matrix [PYTHON ...] [-- PYTEST ARGUMENTS]    for example 3.11 3.13 -- tests/export
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".venv-matrix"
RESOLUTIONS = {"oldest": "lowest-direct", "newest": "highest"}
TOOLS = (
    "pytest>=9",
    "pytest-timeout>=2.4",
    "pytest-xdist>=3.6",
    "hypothesis>=6.100",
    "httpx>=0.28",
    "setuptools>=77",
    "pip>=24",
)
EVERYTHING = ("tests", "--ignore=tests/browser")


def main(arguments: Sequence[str]) -> int:
    """The exit code: 1 if a test failed, or none ran."""
    chosen = [*arguments, "--"]
    pythons, tests = chosen[: chosen.index("--")], chosen[chosen.index("--") + 1 : -1]
    found: dict[str, str] = {}
    for python in pythons or named_pythons():
        for packages in RESOLUTIONS:
            environment = f"Python {python}, {packages} packages"
            print(f"--- {environment}", flush=True)
            problem = install(python, packages)
            found[environment] = f"not installed: {problem}" if problem else run(tests or EVERYTHING)
            shutil.rmtree(FOLDER, ignore_errors=True)
    print(*(f"{environment}: {outcome}" for environment, outcome in found.items()), sep="\n")
    outcomes = [outcome for outcome in found.values() if not outcome.startswith("not installed")]
    return int(not outcomes or any(outcome.startswith("FAILED") for outcome in outcomes))


def named_pythons() -> list[str]:
    return re.findall(r'"Programming Language :: Python :: (3\.\d+)"', (ROOT / "pyproject.toml").read_text())


def install(python: str, packages: str) -> str:
    """A fresh environment; the reason why there is none, or nothing."""
    new = uv("venv", "--quiet", "--clear", "--no-python-downloads", "--python", python, str(FOLDER))
    into = ("--python", str(FOLDER), "--resolution", RESOLUTIONS[packages], "--only-binary", ":all:")
    return new or uv("pip", "install", "--quiet", *into, "-r", "requirements.txt", *TOOLS)


def uv(*arguments: str) -> str:
    """Do it; what uv complains about, or nothing."""
    hidden = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions").glob("3.*")
    environment = {**os.environ, "PYENV_VERSION": ":".join(version.name for version in hidden)}  # pyenv shows one alone
    command = [sys.executable, "-m", "uv", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
    return " ".join(done.stderr.split()) if done.returncode else ""


def run(tests: Sequence[str]) -> str:
    """The versions that were tested, and whether a test failed."""
    python = FOLDER / "bin" / "python"
    versions = "import torch, onnx, onnxruntime as ort; print('torch', torch.__version__, 'onnx', onnx.__version__,"
    versions += " 'onnxruntime', ort.__version__)"
    said = subprocess.run([python, "-c", versions], stdout=subprocess.PIPE, text=True).stdout.strip()
    failed = subprocess.run([python, "-m", "pytest", "-q", "-n", "auto", *tests], cwd=ROOT).returncode
    return f"{'FAILED' if failed else 'passed'} ({said})"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
