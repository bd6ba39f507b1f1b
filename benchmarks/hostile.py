"""Requests of somebody who means no good: random data, wrong types, other people's sessions, bodies without end."""

import random
from collections.abc import Iterator
from typing import Any

API = "gradio_api/"
ROUTES = ("queue/join", "run/predict", "call/fp32_run", "cancel", "reset", "upload", "component_server", "login", "")
LARGE = 4 * 2**20  # bytes; what is too large is refused long before its end
ODD: tuple[Any, ...] = (
    None,
    True,
    -1,
    2**63,
    1e308,
    "",
    "a/../b",
    "\0",
    [],
    {},
    [[[]]],
    "x" * 5000,
    {"__type__": "update"},
)


def hostile(dice: random.Random, events: dict[int, int], count: int) -> Iterator[dict[str, Any]]:
    """Arguments for `httpx.Client.post`; `events` are the page's, each with how many values it takes."""
    for _ in range(count):
        route = API + dice.choice(ROUTES)
        kind = dice.randrange(8)
        if kind == 0:
            yield {"url": route, "content": dice.randbytes(dice.randrange(200))}
        elif kind == 1 and dice.random() < 0.2:
            yield {"url": route, "content": b'{"data": "' + b"A" * LARGE}
        else:
            number = dice.choice([*events, *ODD])
            known = type(number) is int and number in events and dice.random() < 0.7
            length = events[number] if known else dice.randrange(4)
            question = {
                "session_hash": dice.choice(["", "somebody", f"s{dice.randrange(5)}", *ODD]),
                "fn_index": number,
                "data": [dice.choice(ODD) for _ in range(length)] if dice.random() < 0.9 else dice.choice(ODD),
                "event_data": dice.choice(ODD),
                "event_id": dice.choice(ODD),
                "trigger_id": dice.choice(ODD),
            }
            yield {"url": route, "json": {name: value for name, value in question.items() if dice.random() < 0.95}}
