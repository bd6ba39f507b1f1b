"""The scripts as they lie on disk: what they import is there, and no event goes by a name of its own."""

import re
from pathlib import Path

import pytest

from app import session
from app.chapters import CHAPTERS, FOLDER
from app.components.module import STATIC

SCRIPTS = sorted([*STATIC.rglob("*.js"), *FOLDER.rglob("*.js")])
EVENTS = STATIC / "data" / "events.js"
README = Path(__file__).resolve().parents[2] / "README.md"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_every_import_is_exported_where_it_is_sought(script: Path) -> None:
    for names, source in re.findall(r'^import \{ (.+) \} from "(.+)";$', script.read_text(), re.MULTILINE):
        there = (script.parent / source).read_text()
        for name in names.split(", "):
            assert re.search(rf"^export .*\b{name}\b", there, re.MULTILINE), f"{source} exports no {name}"


def test_what_a_chapter_has_alone_no_other_imports() -> None:
    for script in SCRIPTS:
        for source in re.findall(r'from "(.+)";$', script.read_text(), re.MULTILINE):
            there = (script.parent / source).resolve()
            assert there.parent == script.parent.resolve() or STATIC.resolve() in there.parents


def test_all_events_of_the_window_have_their_names_in_one_place() -> None:
    """But for those of the browser itself, and the one that Gradio tells."""
    for script in SCRIPTS:
        if script != EVENTS:
            assert "CustomEvent" not in script.read_text()
            assert set(re.findall(r'window\.addEventListener\("(\w+)"', script.read_text())) <= {
                "popstate",
                "offline",
                "online",
            }
    (settings,) = re.findall(r"CustomEvent\('([\w-]+)'", session.PUBLISH)
    names = dict(re.findall(r'^export const (\w+) = "([\w-]+)";', EVENTS.read_text(), re.MULTILINE))
    assert names["SETTINGS"] == settings
    told, heard = (
        {name for script in SCRIPTS for name in re.findall(rf"\b{verb}\(([A-Z_]+)", script.read_text())}
        for verb in ("tell", "when")
    )
    assert told | {"SETTINGS"} == heard == set(names)


def test_the_course_is_the_folders_and_the_rows_of_the_readme() -> None:
    """Its front door, the first of them, has no row."""
    keys = [chapter.key for chapter in CHAPTERS]
    assert sorted(keys) == sorted(path.parent.name for path in FOLDER.glob("*/chapter.py"))
    assert re.findall(r"^\| (\d+) \| `(\w+)` \|", README.read_text(), re.MULTILINE) == [
        (str(place), key) for place, key in enumerate(keys[1:])
    ]
