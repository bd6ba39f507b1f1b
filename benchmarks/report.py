"""RESULTS.md, from what is kept in results/."""

from dataclasses import asdict
from pathlib import Path

from benchmarks.contenders import CONTENDERS
from benchmarks.results import Result
from benchmarks.sections import SECTIONS
from benchmarks.task import Effort

FILE = Path(__file__).with_name("RESULTS.md")
HEAD = """\
# Results

`python -m benchmarks` measures everything, `--only` one table and `--who` one contender, and writes this file; the
figures themselves are in [`results/`](results). Peers run in an environment of their own, with the versions in
[`requirements-peers.txt`](requirements-peers.txt), each configured as its documentation says by one file in
[`peers/`](peers); ours is configured in [`ours.py`](ours.py).
"""


def report(results: dict[str, dict[str, Result]], effort: Effort) -> str:
    """The whole file. results: section -> contender -> result."""
    parts = [_section(name, found, effort) for name, found in results.items() if found]
    return "\n".join([HEAD, *parts])


def _section(name: str, found: dict[str, Result], effort: Effort) -> str:
    section = SECTIONS[name]
    body = section.render({contender: result["rows"] for contender, result in found.items() if result["rows"]})
    stopped = {CONTENDERS[name].title: result["failed"] for name, result in found.items() if "failed" in result}
    missing = [f"{title} was not measured to the end: {reason}" for title, reason in stopped.items()]
    command = f"`python -m benchmarks --only {name}`, on {_machines(found)}"
    parts = [f"## {section.TITLE}", section.READING.format(**asdict(effort)), body, *missing, command]
    return "\n\n".join(parts) + "\n"


def _machines(found: dict[str, Result]) -> str:
    """Every machine that took part, then the packages."""
    setups = [result["setup"] for result in found.values() if result["setup"]]
    machines = dict.fromkeys(f"{s['machine']}, Python {s['python']}, torch {s['torch']}" for s in setups)
    packages = dict.fromkeys(s["package"] for s in setups if "package" in s)
    return "; ".join([*machines, *packages])
