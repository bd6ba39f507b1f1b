"""Where each contender runs: ours in this Python, the peers in an environment of their own."""

import os
import subprocess
import sys
from pathlib import Path

from benchmarks.contenders import Contender

ROOT = Path(__file__).parent.parent
HOME = ROOT / ".venv-peers"
PYTHON = HOME / ("Scripts" if os.name == "nt" else "bin") / "python"
REQUIREMENTS = Path(__file__).with_name("requirements-peers.txt")
STAMP = HOME / "requirements.stamp"


def python_of(contender: Contender) -> str:
    """The interpreter that has the contender's package, if any has."""
    return str(PYTHON) if contender.package and PYTHON.exists() else sys.executable


def install_peers() -> list[str]:
    """Set the peers' environment up, unless it has what the requirements say.

    A line that cannot be installed does not stop the others: its peer then reports that it is missing.

    Returns:
        The requirements that failed.
    """
    wanted = REQUIREMENTS.read_text()
    if STAMP.exists() and STAMP.read_text() == wanted:
        return []
    lines = [line.split("#")[0].strip() for line in wanted.splitlines()]
    made = _run(sys.executable, "-m", "venv", str(HOME))
    failed = [line for line in lines if line and not (made and _install(line))]
    if not failed:
        STAMP.write_text(wanted)
    return failed


def _install(requirement: str) -> bool:
    pip = (str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    return _run(*pip, requirement, "-c", str(REQUIREMENTS))


def _run(*command: str) -> bool:
    """Whether it worked; what it says goes to stderr, since stdout is for results."""
    return subprocess.run(command, stdout=sys.stderr).returncode == 0
