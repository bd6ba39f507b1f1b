"""What the server hands to a browser that checks the file, without a browser."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from app.chapters.onnxruntime.browser import addresses, at_hand, for_the_browser
from app.lab.fit import Settings
from app.runs.exported import Exported, export_now, with_quick
from app.runs.progress import Progress
from export.read.web import runtime


@pytest.fixture(scope="module")
def exported() -> Exported:
    progress = Progress.start(Settings())
    return with_quick(export_now(progress), progress)


@pytest.fixture
def is_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As far as the server can see."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    runtime.folder().mkdir(parents=True)
    for name in runtime.MEMBERS:
        runtime.folder().joinpath(name).write_bytes(b"12345")


@pytest.mark.usefixtures("is_here")
def test_the_browser_gets_the_very_files_of_the_downloads_and_what_they_answer_here(exported: Exported) -> None:
    frame: dict[str, Any] = json.loads(for_the_browser(exported), parse_constant=pytest.fail)
    assert [base64.b64decode(file["base64"]) for file in frame["files"]] == [exported.model, exported.quick]
    assert [file["name"] for file in frame["files"]] == [exported.name, exported.quick_name]
    assert frame["bytes"] == 5
    for file in frame["files"]:
        assert file["server"]["outcome"] in ("exact", "rounding")
        assert file["server"]["furthest"] < 1e-5
        assert min(file["server"]["load_ms"], file["server"]["answer_ms"]) > 0
    assert json.loads(for_the_browser(exported))["click"] != frame["click"]  # a second click is another value


def test_what_is_not_installed_gets_one_sentence(
    exported: Exported, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    frame = json.loads(for_the_browser(exported))
    assert frame["problem"]
    assert "onnxruntime for browsers is not installed beside this page" in frame["words"]
    assert "files" not in frame


def test_nothing_is_named_before_the_click(exported: Exported) -> None:
    for state in (None, exported):
        assert set(json.loads(at_hand(state))) == {"words"}
    assert set(addresses()) == {"checker", "ort", "wasm"}
