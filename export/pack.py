"""The checker as one file: what this room needs to check, look into and run an ONNX file, without torch.

Whoever is handed a model can be handed this too: `python check.pyz check model.onnx` asks for Python, onnx and
onnxruntime, and for nothing of this repository.
"""

import io
import os
import zipfile
from importlib import resources

from export.files import writing

PARTS = (
    *("__init__", "__main__", "audit", "codes", "compare", "files", "kernels", "latency", "layout"),
    *("nibbles", "pack", "picture", "proof", "receipt", "runtime", "svg"),
)
MAIN = "import sys\n\nfrom export.__main__ import main\n\nsys.exit(main())\n"
EPOCH = (1980, 1, 1, 0, 0, 0)  # the same sources give the same file


def pack(path: str | os.PathLike[str]) -> None:
    """Write the checker.

    Raises:
        FileError: the path cannot be written.
    """
    sources = {f"export/{name}.py": _source(f"{name}.py") for name in PARTS}
    with writing(path) as target:
        target.write_bytes(_zip({"__main__.py": MAIN, **sources}))


def _source(name: str) -> str:
    return resources.files("export").joinpath(name).read_text(encoding="utf-8")


def _zip(texts: dict[str, str]) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, text in texts.items():
            archive.writestr(zipfile.ZipInfo(name, EPOCH), text, zipfile.ZIP_DEFLATED, 9)
    return data.getvalue()
