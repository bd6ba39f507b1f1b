"""Measures one section of one contender: `python -m benchmarks.peers.run brevitas accuracy`.

Runs in the contender's own environment and needs nothing else than torch and the contender there. Prints one JSON
object a line: {"setup": ..., "total": n}, then each of the n rows after those to skip, as soon as it is measured.
"""

import argparse
import json
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path

import torch

from app.lab import devices
from app.lab.threads import fix_threads
from benchmarks.contenders import CONTENDERS, Contender
from benchmarks.sections import SECTIONS
from benchmarks.task import QUICK, Effort


def main() -> None:
    args = _parser().parse_args()
    contender, section = CONTENDERS[args.contender], SECTIONS[args.section]
    answers, sys.stdout = sys.stdout, sys.stderr  # libraries print what they like; only JSON leaves here
    fix_threads()
    effort = QUICK if args.quick else Effort()
    library = contender.library()
    jobs = section.jobs(library, effort)
    print(json.dumps({"setup": _setup(contender), "total": len(jobs)}), file=answers, flush=True)
    for job in jobs[args.skip :]:
        try:
            row = {**job, **section.measure(library, job, effort)}
        except Exception as error:  # whatever a library raises is an answer for the table
            row = {**job, "failed": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"}
        print(json.dumps(row), file=answers, flush=True)


def _setup(contender: Contender) -> dict[str, str]:
    """What the figures depend on besides the code."""
    setup = {"machine": _machine(), "python": platform.python_version(), "torch": torch.__version__}
    if contender.package:
        setup["package"] = f"{contender.package} {version(contender.package)}"
    return setup


def _machine() -> str:
    """Processor, its instructions, cores and GPU. Names do not tell processors with and without VNNI apart."""
    info = Path("/proc/cpuinfo")
    has_vnni = info.exists() and "vnni" in info.read_text()
    instructions = torch.backends.cpu.get_cpu_capability() + (" VNNI" if has_vnni else "")
    machine = f"{devices.processor()} ({instructions}), {os.cpu_count()} cores"
    return f"{machine}, {torch.cuda.get_device_name()}" if torch.cuda.is_available() else machine


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers.run", description=__doc__)
    parser.add_argument("contender", choices=CONTENDERS)
    parser.add_argument("section", choices=SECTIONS)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--skip", type=int, default=0, help="rows that are there already")
    return parser


if __name__ == "__main__":
    main()
