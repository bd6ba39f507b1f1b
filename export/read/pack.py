"""The checker as one file: the room `export/read` and its command line, which need no torch.

Whoever is handed a model can be handed this too: `python check.pyz check model.onnx` asks for Python, onnx and
onnxruntime, and for nothing of this repository. `check.html` asks for a browser.
"""

import io
import os
import zipfile
from collections.abc import Iterator
from importlib import resources
from typing import TYPE_CHECKING

from export.read.files import FileError, writing
from export.read.web.page import page
from export.read.web.runtime import MissingError

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

MAIN = "import sys\n\nfrom export.__main__ import main\n\nsys.exit(main())\n"
PAGES = (".html", ".htm")
EPOCH = (1980, 1, 1, 0, 0, 0)  # the same sources give the same file


def pack(path: str | os.PathLike[str]) -> None:
    """Write the checker: a page if the path ends in .html, else an archive that Python runs.

    Raises:
        FileError: the path cannot be written; for a page, onnxruntime-web cannot be fetched, or this is the archive.
    """
    try:
        data = page().encode() if os.fspath(path).lower().endswith(PAGES) else _archive()
    except MissingError as error:
        raise FileError(str(error)) from error
    with writing(path) as target:
        target.write_bytes(data)


def _archive() -> bytes:
    sources = dict(_sources(resources.files("export.read"), "export/read"))
    for name in ("__init__.py", "__main__.py"):
        sources[f"export/{name}"] = resources.files("export").joinpath(name).read_text(encoding="utf-8")
    return _zip({"__main__.py": MAIN, **sources})


def _sources(folder: "Traversable", path: str) -> Iterator[tuple[str, str]]:
    """Every module below a folder: its path in the archive, its text."""
    for part in sorted(folder.iterdir(), key=lambda part: part.name):
        if part.is_dir():
            yield from _sources(part, f"{path}/{part.name}")
        elif part.name.endswith(".py"):
            yield f"{path}/{part.name}", part.read_text(encoding="utf-8")


def _zip(texts: dict[str, str]) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, text in texts.items():
            archive.writestr(zipfile.ZipInfo(name, EPOCH), text, zipfile.ZIP_DEFLATED, 9)
    return data.getvalue()
