"""`make zoo`: which architectures go through? Measures what is not measured yet, and writes ZOO.md.

    python -m benchmarks.zoo [--again] [--workers 2] [--widths torch W4 W4A8 W8A8] [NAME ...]

Each architecture in a process of its own, forked from one that has imported everything; one that takes too long is
stopped. Results lie in results/zoo.json, so that a run that was broken off goes on where it was.
"""

import argparse
import importlib
import json
import multiprocessing
import os
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.zoo import ROOMS, table
from benchmarks.zoo.one import WIDTHS, attempts

HERE = Path(__file__).resolve().parent
RESULTS, PAGE = HERE.parent / "results" / "zoo.json", HERE.parent / "ZOO.md"
LIMIT_S = 900  # for all widths of an architecture
PRELOADED = ["benchmarks.zoo.one", "torch.onnx", *sorted({f"benchmarks.zoo.{module}" for module in ROOMS.values()})]


def main() -> None:
    args = _parser().parse_args()
    os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error")
    found: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    waiting = [
        (room, name)
        for room, module in ROOMS.items()
        for name in importlib.import_module(f"benchmarks.zoo.{module}").ZOO[room]
        if (name in args.names or not args.names)
        and (args.again or not set(args.widths) <= found.get(room, {}).get(name, {}).keys())
    ]
    running: list[tuple[Any, Connection, str, str, float]] = []
    while waiting or running:
        while waiting and len(running) < args.workers:
            room, name = waiting.pop(0)
            here, there = context.Pipe(duplex=False)
            process = context.Process(target=attempts, args=(there, room, name, args.widths))
            process.start()
            there.close()
            running.append((process, here, room, name, time.monotonic()))
        for entry in list(running):
            process, here, room, name, began = entry
            rows = found.setdefault(room, {}).setdefault(name, {})
            late = time.monotonic() - began > LIMIT_S
            if _read(here, rows) and not late:
                continue
            if late:
                process.kill()
            process.join()
            running.remove(entry)
            for width in args.widths:
                rows.setdefault(width, {"refused": f"stopped after {LIMIT_S} s" if late else "its process died"})
            print(f"{room}: {name}: {', '.join(f'{w} {table.short(rows[w])}' for w in args.widths)}", flush=True)
            RESULTS.write_text(json.dumps(found, indent=1) + "\n")
            PAGE.write_text(table.page(found))


def _read(here: Connection, rows: dict[str, Any]) -> bool:
    """Take what a process has to say; False when there will be no more."""
    try:
        while here.poll(0.1):
            width, row = here.recv()
            rows[width] = row
    except EOFError:
        return False
    return True


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.zoo", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="architectures; all if none is named")
    parser.add_argument("--again", action="store_true", help="measure what is measured already")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--widths", nargs="+", choices=["torch", *WIDTHS], default=["torch", *WIDTHS])
    return parser


if __name__ == "__main__":
    main()
