"""`python -m benchmarks`: measure what was asked for, keep it, and write RESULTS.md."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.contenders import CONTENDERS, TRAINED
from benchmarks.environment import ROOT, install_peers, python_of
from benchmarks.report import FILE, report
from benchmarks.results import Result, load, save
from benchmarks.sections import SECTIONS
from benchmarks.task import QUICK, Effort


def main(argv: Sequence[str] | None = None) -> int:
    """Answer one command line; returns the exit code."""
    args = _parser().parse_args(argv)
    chosen = [(section, name) for section in args.only for name in args.who if name in takes_part(section)]
    if any(CONTENDERS[name].package for _, name in chosen):
        for requirement in install_peers():
            print(f"could not install {requirement}; its row will say so", file=sys.stderr)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    measured: dict[str, dict[str, Result]] = {section: {} for section in args.only}
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True)) as progress:
        for section, name in chosen:
            kept = load(section).get(name, {}) if args.resume and not args.quick else {}
            if kept and "failed" not in kept:
                continue
            for result in measure(section, name, args.quick, kept.get("rows", []), progress):
                measured[section][name] = result
                if not args.quick:
                    save(section, name, result)
    if args.quick:
        print(report(measured, QUICK))
    else:
        FILE.write_text(report({section: load(section) for section in SECTIONS}, Effort()))
        print(FILE.relative_to(ROOT))
    return 0


def takes_part(section: str) -> Collection[str]:
    """The contenders that a section measures."""
    return getattr(SECTIONS[section], "WHO", TRAINED)


def measure(
    section: str, name: str, quick: bool, rows: Sequence[dict[str, Any]], progress: Progress
) -> Iterator[Result]:
    """One section of one contender, in its own process and environment, going on after the rows that are there.

    Yields what there is after each row; until the last it says that it was interrupted.
    """
    contender = CONTENDERS[name]
    options = [*["--quick"] * quick, f"--skip={len(rows)}"]
    command = [python_of(contender), "-m", "benchmarks.peers.run", name, section, *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    task = progress.add_task(f"{section}, {contender.title}", total=None, completed=len(rows))
    result: Result = {"setup": {}, "failed": "interrupted; --resume goes on", "rows": list(rows)}
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True)
        assert process.stdout
        for line in map(json.loads, process.stdout):
            if "setup" in line:
                result["setup"] = line["setup"]
                progress.update(task, total=line["total"])
            else:
                result["rows"].append(line)
                progress.advance(task)
                yield result
        del result["failed"]
        if process.wait():
            errors.seek(0)
            result["failed"] = errors.read().strip().rpartition("\n")[2]
    yield result


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="This library beside its peers.")
    add = parser.add_argument
    add("--only", type=_names(SECTIONS), default=list(SECTIONS), help=f"of {','.join(SECTIONS)} (default: all)")
    add("--who", type=_names(CONTENDERS), default=list(CONTENDERS), help=f"of {','.join(CONTENDERS)} (default: all)")
    add("--quick", action="store_true", help="a few steps, to see that it runs: prints the tables and keeps nothing")
    add("--resume", action="store_true", help="go on where a run was interrupted; skip what is whole")
    add("--render", dest="only", action="store_const", const=[], help="write RESULTS.md again and measure nothing")
    return parser


def _names(known: Collection[str]) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        names = text.split(",")
        if unknown := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(f"{unknown[0]!r} is not one of {', '.join(known)}")
        return names

    return parse


if __name__ == "__main__":
    sys.exit(main())
