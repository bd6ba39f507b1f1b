"""What was measured, kept as JSON: a file for each section of each contender, so that each can be run again alone."""

import json
from pathlib import Path
from typing import Any

from benchmarks.contenders import CONTENDERS

FOLDER = Path(__file__).parent / "results"

Result = dict[str, Any]  # {"setup": {...}, "rows": [...]}, and "failed": why, if it did not come to its end


def save(section: str, contender: str, result: Result) -> None:
    FOLDER.mkdir(exist_ok=True)
    rows = ",\n".join("  " + json.dumps(row) for row in result["rows"])
    head = {key: value for key, value in result.items() if key != "rows"}
    (FOLDER / f"{section}-{contender}.json").write_text(f'{json.dumps(head)[:-1]}, "rows": [\n{rows}\n]}}\n')


def load(section: str) -> dict[str, Result]:
    """The results of every contender that was measured, in the tables' order."""
    files = {name: FOLDER / f"{section}-{name}.json" for name in CONTENDERS}
    return {name: json.loads(file.read_text()) for name, file in files.items() if file.exists()}
