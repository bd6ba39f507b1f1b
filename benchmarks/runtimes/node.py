"""Node.js, which runs onnxruntime's builds for JavaScript: this machine's, or the one that playwright brings."""

import shutil
from importlib.util import find_spec
from pathlib import Path


def node() -> str:
    """Its path.

    Raises:
        OSError: there is none.
    """
    if path := shutil.which("node"):
        return path
    package = find_spec("playwright")
    path = Path(package.origin).parent / "driver" / "node" if package and package.origin else Path("nowhere")
    if not path.exists():
        raise OSError("there is no Node.js here, and no playwright, which brings one")
    return str(path)
