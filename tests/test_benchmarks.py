"""The page of results says what was measured, and our side of it still runs."""

import json
import subprocess
import sys

from benchmarks.report import FILE, report
from benchmarks.results import load
from benchmarks.sections import SECTIONS
from benchmarks.task import Effort


def test_the_page_is_what_the_kept_figures_say():
    assert FILE.read_text() == report({section: load(section) for section in SECTIONS}, Effort())


def test_our_recipes_still_run():
    command = [sys.executable, "-m", "benchmarks.peers.run", "ours", "accuracy", "--quick"]
    lines = subprocess.check_output(command, cwd=FILE.parents[1], text=True).splitlines()
    setup, *rows = map(json.loads, lines)
    assert setup["total"] == len(rows)
    assert {row["bits"] for row in rows} >= {1.58, 2, 3, 4}
    assert all("error" not in row for row in rows)


def test_a_run_goes_on_after_the_rows_that_are_there():
    command = [sys.executable, "-m", "benchmarks.peers.run", "ours", "memory", "--quick"]
    first, rest = (
        subprocess.check_output([*command, f"--skip={rows}"], cwd=FILE.parents[1], text=True).splitlines()
        for rows in (0, 4)
    )
    assert first[0] == rest[0]
    assert first[5:] == rest[1:] != []
