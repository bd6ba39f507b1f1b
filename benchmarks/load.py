"""`python -m benchmarks.load`: visitors who press Run within a second, while others read the page.

It starts a server of its own and speaks to it as the page does. Server and visitors share the machine.
"""

import argparse
import asyncio
import json
import random
import re
import sys
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any

import httpx

from app.settings import DEFAULTS, NAMES
from benchmarks.hostile import hostile
from benchmarks.server import LIMITS, ROOT, serving

RUN_SECONDS = 300
AT_ONCE = 8
GREEDY, OTHER = "203.0.113.1", "203.0.113.2"  # addresses of which the first runs all that it may
HEAD_START = 2.0  # seconds
MOST_SLOWER = 2.0  # times, for the other
STATIC = ("page/address.js", "page/nav.js", "charts/plot.js", "charts/models.js")


@dataclass(frozen=True)
class Visit:
    """Seconds after Run was pressed at which frames came, and what went wrong."""

    frames: tuple[float, ...]
    problem: str = ""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and fail if a visitor was let down."""
    args = _parser().parse_args(argv)
    faults: list[str] = []
    with serving() as served:
        asyncio.run(crowd(served.url, args.api, 1, 0, "same"))  # as in a server that somebody has used before
        visits, reads = asyncio.run(crowd(served.url, args.api, args.visitors, args.readers, args.settings))
        print(report(visits, reads))
        if args.greedy:
            alone, beside = asyncio.run(shared(served.url, args.greedy))
            slower = beside / alone
            print(
                f"a run alone: {alone:.1f} s, beside {args.greedy} of another address: {beside:.1f} s, {slower:.2f} x"
            )
            faults += [f"{slower:.2f} x slower beside another address"] if slower > MOST_SLOWER else []
        if args.hostile:
            before = served.megabytes
            found = asyncio.run(attack(served.url, args.hostile))
            print(f"hostile requests: {args.hostile:,}; answered with a fault: {len(found)}", *found[:3], sep="\n")
            faults += found
            print(f"memory of the server: {before:,.0f} MB before, {served.megabytes:,.0f} MB after")
    return int(bool(faults) or any(visit.problem for visit in visits))


async def shared(url: str, greedy: int) -> tuple[float, float]:
    """Seconds of a run of its own for one address, alone and beside as many of another."""
    seconds = []
    for beside in (0, greedy):
        crowding = asyncio.create_task(crowd(url, "fp32_run", beside, 0, "different", 2000, GREEDY))
        await asyncio.sleep(HEAD_START)
        (visit,), _ = await crowd(url, "fp32_run", 1, 0, "different", 3000 + beside, OTHER)
        if visit.problem:
            raise RuntimeError(visit.problem)
        seconds.append(visit.frames[-1])
        crowding.cancel()
    return seconds[0], seconds[1]


async def attack(url: str, count: int) -> list[str]:
    """Hostile requests, eight at once, and an honest visitor in their midst; whatever was a fault."""
    faults: list[str] = []
    async with httpx.AsyncClient(base_url=url, timeout=RUN_SECONDS) as http:
        events = {d["id"]: len(d["inputs"]) for d in (await http.get("/config")).json()["dependencies"]}
        asked = hostile(random.Random(0), events, count)

        async def worker() -> None:
            for one in asked:
                answer = await http.post(**one)
                if answer.status_code >= 500:
                    faults.append(f"{answer.status_code}: {one!r:.200}")

        attacking = asyncio.gather(*(worker() for _ in range(AT_ONCE)))
        visits: list[Visit] = []
        while not (attacking.done() and visits):  # one honest visitor after another, each with a run of their own
            visits += (await crowd(url, "fp32_run", 1, 0, "different", first_seed=1000 + len(visits)))[0]
        await attacking
        print(f"meanwhile: {report(visits, [])}")
        if (await http.get("/healthz")).status_code != httpx.codes.OK:
            faults.append("the queue has stopped")
    return faults + [visit.problem for visit in visits if visit.problem]


async def crowd(
    url: str, api: str, visitors: int, readers: int, settings: str, first_seed: int = 0, address: str = OTHER
) -> tuple[list[Visit], list[float]]:
    """Let them all in; the visits, and how long each page took its reader."""
    header = {"x-forwarded-for": address}
    async with httpx.AsyncClient(base_url=url, timeout=RUN_SECONDS, limits=LIMITS, headers=header) as http:
        config = (await http.get("/config")).json()
        named = [d for d in config["dependencies"] if re.fullmatch(rf"{api}(_\d+)?", str(d["api_name"]))]
        handler = next(d for d in named if len(d["inputs"]) > len(NAMES))  # of a chapter that the settings apply to
        ended = asyncio.Event()
        reading = [asyncio.create_task(_read(http, ended)) for _ in range(readers)]
        seeds = [first_seed + i if settings == "different" else DEFAULTS["seed"] for i in range(visitors)]
        visits = await asyncio.gather(*(_visit(http, handler, seed, i / visitors) for i, seed in enumerate(seeds)))
        ended.set()
        reads = [seconds for part in await asyncio.gather(*reading) for seconds in part]
    return list(visits), reads


async def _visit(http: httpx.AsyncClient, handler: dict[str, Any], seed: int, delay: float) -> Visit:
    """One visitor: press Run, and watch to the end."""
    await asyncio.sleep(delay)
    session = uuid.uuid4().hex
    settings = [{**DEFAULTS, "seed": seed}[name] for name in NAMES]
    data = [None] * (len(handler["inputs"]) - len(settings)) + settings
    frames: list[float] = []
    pressed = time.monotonic()
    call = {"data": data, "fn_index": handler["id"], "session_hash": session}
    (await http.post("/gradio_api/queue/join", json=call)).raise_for_status()
    async for message in messages(http, session):
        if message["msg"] in ("process_generating", "process_completed"):
            frames.append(time.monotonic() - pressed)
        if message["msg"] == "process_completed":
            return Visit(tuple(frames), "" if message["success"] else str(message["output"]))
        if message["msg"] == "unexpected_error":
            return Visit(tuple(frames), str(message))
    return Visit(tuple(frames), "the stream ended before the run")


async def messages(http: httpx.AsyncClient, session: str) -> AsyncIterator[dict[str, Any]]:
    """The stream that the page listens to. Read by hand: 25 of them in an HTTP library keep a processor busy."""
    url = http.base_url
    reader, writer = await asyncio.open_connection(url.host, url.port, limit=2**20)
    writer.write(f"GET /gradio_api/queue/data?session_hash={session} HTTP/1.0\r\nHost: {url.host}\r\n\r\n".encode())
    try:
        while line := await reader.readline():
            if line.startswith(b"data:"):
                yield json.loads(line.removeprefix(b"data:"))
    finally:
        writer.close()


async def _read(http: httpx.AsyncClient, ended: asyncio.Event) -> list[float]:
    """One reader: opens the page, reads, and opens other chapters; what is dragged meanwhile asks no server."""
    folder = f"/gradio_api/file={(ROOT / 'app' / 'static').as_posix()}"
    took = []
    paths = ("/", *(f"{folder}/{name}" for name in STATIC))
    await asyncio.sleep(random.uniform(0, 10))
    while not ended.is_set():
        started = time.monotonic()
        for path in paths:
            (await http.get(path)).raise_for_status()
        took.append(time.monotonic() - started)
        paths = paths[-1:]
        await asyncio.sleep(random.uniform(5, 15))
    return took


def report(visits: list[Visit], reads: list[float]) -> str:
    """The figures in words."""
    problems = [visit.problem for visit in visits if visit.problem]
    good = [visit.frames for visit in visits if not visit.problem]
    lines = [f"visitors: {len(visits)}; errors: {len(problems)}", *problems[:3]]
    if good:
        first = [frames[0] for frames in good]
        rates = [(len(frames) - 1) / (frames[-1] - frames[0]) for frames in good]
        lines += [
            f"first frame: median {median(first):.2f} s, 95th percentile {_p95(first):.2f} s",
            f"frames a second: median {median(rates):.1f}, slowest visitor {min(rates):.1f}",
            f"all finished after {max(frames[-1] for frames in good):.1f} s",
        ]
    if reads:
        lines.append(f"pages read: {len(reads)}; median {median(reads):.2f} s, 95th percentile {_p95(reads):.2f} s")
    return "\n".join(lines)


def _p95(values: list[float]) -> float:
    return quantiles(values, n=20)[-1] if len(values) > 1 else values[0]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description="A crowd on the page.")
    add = parser.add_argument
    add("--visitors", type=int, default=25, help="how many press Run within a second (default: 25)")
    add("--readers", type=int, default=100, help="how many read the page meanwhile (default: 100)")
    add("--settings", choices=("same", "different"), default="same", help="all defaults, or a seed each")
    add("--greedy", type=int, default=0, help="how many runs one address has beside that of another (default: none)")
    add("--hostile", type=int, default=0, help="how many hostile requests come afterwards (default: none)")
    add("--api", default="fp32_run", help="the handler behind Run (default: fp32_run)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
