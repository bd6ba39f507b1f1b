"""`python -m benchmarks.soak`: visitors who do random things for half an hour, and what the server's memory does.

It starts a server of its own. A visitor opens the page, clicks on anything with settings that the page offers, watches
for a while or leaves at once, and comes back as somebody else; each has an address of their own.
"""

import argparse
import asyncio
import random
import sys
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from typing import Any

import httpx

from benchmarks.load import messages
from benchmarks.server import LIMITS, Served, serving

MOST_SECONDS_A_LOOK = 12.0
MOST_CLICKS = 8
PATIENCE = 120.0  # seconds
SETTLED_MINUTE = 5  # from which on memory should be flat
MOST_GROWTH = 100  # megabytes
ENDED = ("process_completed", "unexpected_error", "close_stream")
Component = dict[str, Any]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print a line a minute, and fail if an answer was a fault or memory grew."""
    args = _parser().parse_args(argv)
    with serving() as served:
        found, memory = asyncio.run(soak(served, args.visitors, args.minutes))
    print(*(f"{count:6,}  {what}" for what, count in found.most_common()), sep="\n")
    faults = sum(count for what, count in found.items() if what.startswith("fault"))
    settled = min(SETTLED_MINUTE, len(memory) - 1)
    grown = memory[-1] - memory[settled]
    print(f"faults: {faults}; memory from minute {settled} on: {grown:+,.0f} MB")
    return int(faults > 0 or grown > MOST_GROWTH)


async def soak(served: Served, visitors: int, minutes: float) -> tuple[Counter[str], list[float]]:
    """How often each thing happened, and megabytes at the beginning of each minute and at the end."""
    found: Counter[str] = Counter()
    ends = time.monotonic() + 60 * minutes
    crowd = [asyncio.create_task(_visitor(served.url, number, ends, found)) for number in range(visitors)]
    memory = []
    while (left := ends - time.monotonic()) > 0:
        memory.append(served.megabytes)
        print(f"minute {len(memory) - 1}: {memory[-1]:,.0f} MB, {found.total():,} answers", flush=True)
        await asyncio.sleep(min(60.0, left))
    await asyncio.gather(*crowd)
    async with httpx.AsyncClient(base_url=served.url, timeout=PATIENCE) as http:
        alive = (await http.get("/healthz")).status_code == httpx.codes.OK
    found["alive at the end" if alive else "fault: the queue has stopped"] += 1
    return found, [*memory, served.megabytes]


async def _visitor(url: str, number: int, ends: float, found: Counter[str]) -> None:
    dice = random.Random(number)
    address = {"x-forwarded-for": f"203.0.113.{number + 1}"}
    async with httpx.AsyncClient(base_url=url, headers=address, timeout=PATIENCE, limits=LIMITS) as http:
        while time.monotonic() < ends:
            (await http.get("/")).raise_for_status()
            config = (await http.get("/config")).json()
            components = {component["id"]: component for component in config["components"]}
            events = [event for event in config["dependencies"] if event["backend_fn"]]
            session = uuid.UUID(int=dice.getrandbits(128)).hex
            for _ in range(dice.randint(1, MOST_CLICKS)):
                if time.monotonic() < ends:
                    event = dice.choice(events)
                    inputs = [_value(components[of], dice) for of in event["inputs"]]
                    found[await _click(http, session, event, inputs, dice)] += 1
                    await asyncio.sleep(dice.uniform(0, 2))


async def _click(
    http: httpx.AsyncClient, session: str, event: dict[str, Any], inputs: list[Any], dice: random.Random
) -> str:
    """What came of it."""
    call = {"data": inputs, "fn_index": event["id"], "session_hash": session}
    answer = await http.post("/gradio_api/queue/join", json=call)
    if answer.status_code == httpx.codes.TOO_MANY_REQUESTS:
        return "refused for now"
    if answer.is_error:
        return f"fault: {answer.status_code} {answer.text:.100}"
    try:
        async with asyncio.timeout(dice.uniform(0, MOST_SECONDS_A_LOOK)):
            async for message in messages(http, session):
                if message["msg"] in ENDED:
                    return _outcome(event, message)
    except TimeoutError:
        return "left before the end"
    return f"fault: the stream of {event['api_name']} ended"


def _outcome(event: dict[str, Any], message: dict[str, Any]) -> str:
    if message["msg"] == "process_completed" and not message["success"]:
        return f"fault: {event['api_name']}: {message['output']}"
    return "fault: " + str(message)[:200] if message["msg"] == "unexpected_error" else "answered"


def _value(component: Component, dice: random.Random) -> Any:
    """Something that the page would send."""
    props = component["props"]
    if choices := props.get("choices"):
        return dice.choice(choices)[1]
    if component["type"] == "slider":
        return round(dice.uniform(props["minimum"], props["maximum"]), 2)
    value = props.get("value")
    return value + dice.randint(0, 20) if isinstance(value, int) and not isinstance(value, bool) else value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description="A crowd that does random things.")
    parser.add_argument("--visitors", type=int, default=20, help="how many at once (default: 20)")
    parser.add_argument("--minutes", type=float, default=30.0, help="for how long (default: 30)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
