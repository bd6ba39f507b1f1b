"""The check as one page to hand on with a model: the modules of this folder and onnxruntime, with nothing to fetch."""

import base64
import re
from importlib import resources
from string import Template

from export.read.web import runtime

MODULES = ("sha256.js", "python_json.js", "onnx.js", "sample.js", "receipt.js", "check.js", "page.js")
EMBEDDED = {"ort": runtime.MODULE, "wasm": runtime.WASM}
IMPORT = re.compile(r'^import \{.*\} from "\./.*";\n', re.MULTILINE)
EXPORT = re.compile(r"^export (?=async function|function|class|const)", re.MULTILINE)


def page() -> str:
    """Its HTML.

    Raises:
        MissingError: onnxruntime-web is not here and cannot be fetched, or the modules are not.
    """
    if not resources.files("export.read.web").joinpath("page.html").is_file():
        raise runtime.MissingError(
            "a page is written by `python -m export pack`; this archive has not what it is made of"
        )
    folder = runtime.fetch()
    embedded = {name: base64.b64encode(folder.joinpath(file).read_bytes()).decode() for name, file in EMBEDDED.items()}
    script = "\n".join(EXPORT.sub("", IMPORT.sub("", _text(name))) for name in MODULES)
    return Template(_text("page.html")).substitute(version=runtime.VERSION, script=script, **embedded)


def _text(name: str) -> str:
    return resources.files("export.read.web").joinpath(name).read_text(encoding="utf-8")
