"""One onnxruntime after another, each in a folder of its own that goes before this environment's packages."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks.environment import ROOT

HOME = ROOT / ".runtimes"
VERSIONS = (  # the last of each minor version, oldest first
    "1.22.1",
    "1.23.2",
    "1.24.4",
    "1.25.1",
    "1.26.0",
    "1.27.0",
    "1.28.0",
    "1.29.0",
    "1.30.0",
    "1.31.1",
    "1.32.0",
)
OPENVINO = "2026.4.1"
CRASHED = "the process ended"
IN_PYTHON = ("-m", "benchmarks.runtimes.answers")


def folder_of(*requirements: str) -> Path:
    """Where packages are, without what they depend on; they are installed if this is the first time.

    Raises:
        OSError: pip does not get them.
    """
    folder = HOME / "-".join(requirements).replace("==", "-")
    if folder.exists():
        return folder
    HOME.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=HOME) as place:
        pip = (
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--retries=1",
            "--no-deps",
            "--target",
            f"{place}/new",
        )
        done = subprocess.run([*pip, *requirements], capture_output=True, text=True)
        if done.returncode:
            raise OSError(f"cannot install {', '.join(requirements)}: {done.stderr.strip().rpartition(chr(10))[2]}")
        with suppress(OSError):  # another process was quicker
            Path(place, "new").rename(folder)
    return folder


def answers(
    command: Sequence[str], folder: Path | None, files: Path, runtime: str, script: Sequence[str] = IN_PYTHON
) -> list[dict[str, Any]]:
    """What all files in a folder answer, a row each, of those that crash too.

    Args:
        command: the Python, or whatever the script is for, that runs them, and what runs that.
        folder: with the packages that go before its own; None is its own alone.
        files: where they are, each beside what it is asked and should answer.
        runtime: "onnxruntime" or one of `others.py`; for another script, what that takes.
        script: what answers, and prints a line a file.
    """
    import numpy as np

    names = sorted(path.stem for path in files.glob("*.onnx"))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, filter(None, (folder, ROOT))))}
    rows: list[dict[str, Any]] = []
    while len(rows) < len(names):
        ask = [*command, *script, str(files), str(len(rows)), runtime]
        done = subprocess.run(ask, env=environment, capture_output=True, text=True)
        rows += [json.loads(line) for line in done.stdout.splitlines()]
        if len(rows) < len(names):
            rows.append({"file": names[len(rows)], "answers": {"failed": f"{CRASHED} with {done.returncode}"}})
    return [{**row, "exact": bool(np.load(files / f"{row['file']}.npz")["exact"])} for row in rows]
