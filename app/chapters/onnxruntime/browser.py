"""What the visitor's own browser needs to check the file: the file itself, and what this server made of it."""

import base64
import time
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnxruntime

from app.components.module import static_path
from app.runs.exported import Exported
from app.runs.messages import to_json
from export import FileError, ReceiptError, check
from export.read.runtime import run, session
from export.read.web import FOLDER, runtime

LOADS, ANSWERS = 5, 50
NOT_ASKED = "Nothing is loaded until you ask for it: onnxruntime for browsers takes 3.7 MB."
NOT_HERE = (
    "onnxruntime for browsers is not installed beside this page, so it can only be checked on the server; "
    "`python -m export.read.web` on the server fetches it."
)
clicks = count(1)  # the same answer to another click is another value


def addresses() -> dict[str, str]:
    """Of what the browser loads after the click."""
    files = {
        "checker": FOLDER / "check.js",
        "ort": runtime.folder() / runtime.MODULE,
        "wasm": runtime.folder() / runtime.WASM,
    }
    return {name: static_path(path) for name, path in files.items()}


def at_hand(exported: Exported | None) -> str:
    """Before the click."""
    return to_json({"words": NOT_ASKED if exported else ""})


def for_the_browser(exported: Exported | None) -> str:
    """Both flavours, each with what onnxruntime answers here."""
    if exported is None:
        return at_hand(exported)
    if not runtime.is_here():
        return to_json({"words": NOT_HERE, "problem": True, "click": next(clicks)})
    with exported.on_disk() as path:
        paths = {"qdq": path, "ort": path.with_name(exported.quick_name)}
        files = [described(flavor, file) for flavor, file in paths.items() if file.exists()]
    return to_json(
        {
            "words": "",
            "click": next(clicks),
            "files": files,
            "why_not": exported.why_not_quick,
            "server": f"onnxruntime {onnxruntime.__version__}",
            "bytes": runtime.folder().joinpath(runtime.WASM).stat().st_size,
        }
    )


def described(flavor: str, path: Path) -> dict[str, Any]:
    """One file, and its receipt recomputed here, in a session of its own."""
    try:
        report = check(path)
        furthest, outcome, problem = report.worst.max_abs_diff, report.outcome, ""
    except (FileError, ReceiptError) as error:
        furthest, outcome, problem = None, "broken", str(error)
    loading = seconds(lambda: session(path), LOADS)
    runtime_session, x = session(path), np.full((1, 1), 0.5, np.float32)
    return {
        "flavor": flavor,
        "name": path.name,
        "base64": base64.b64encode(path.read_bytes()).decode(),
        "server": {
            "furthest": furthest,
            "outcome": outcome,
            "problem": problem,
            "load_ms": 1000 * loading,
            "answer_ms": 1000 * seconds(lambda: run(runtime_session, [x]), ANSWERS),
        },
    }


def seconds(act: Any, times: int) -> float:
    """The median of several calls."""
    found = []
    for _ in range(times):
        start = time.perf_counter()
        act()
        found.append(time.perf_counter() - start)
    return median(found)
