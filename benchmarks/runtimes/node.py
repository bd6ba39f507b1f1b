"""Node.js, which runs onnxruntime's builds for JavaScript: this machine's, or the one that playwright brings."""

import shutil
from importlib.util import find_spec
from pathlib import Path


def node() -> str:
    """Its path.

    Raises:
        OSError: there is none.
    """
    if found := shutil.which("node"):
        return found
    package = find_spec("playwright")
    if package and package.origin and (path := Path(package.origin).with_name("driver") / "node").exists():
        return str(path)
    raise OSError("there is no Node.js here, and no playwright, which brings one")
