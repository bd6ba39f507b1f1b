"""Turns are shared among addresses: whoever runs fifty networks waits for their own, and a newcomer for one of them.

Whatever is computed is computed on behalf of a session, and ends when its visitor has left.
"""

import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple, TypeVar

T = TypeVar("T")

MOST_SESSIONS = 10_000


class Asked(NamedTuple):
    """For whom something is computed.

    Attributes:
        session: that asked for it; None for nobody that is known.
        at: when it did, in seconds of `time.monotonic()`; None where nobody has looked.
    """

    session: str | None = None
    at: float | None = None


NOBODY = Asked()

_addresses: "OrderedDict[str | None, str]" = OrderedDict()
_left: "OrderedDict[str | None, None]" = OrderedDict()
_current: ContextVar[Asked] = ContextVar("asked", default=NOBODY)


def know(session: str, address: str) -> None:
    """Where a session is from, which asks for something just now."""
    _left.pop(session, None)
    note(_addresses, session, address)


def part_from(session: str) -> None:
    """Nobody reads what it has asked for, until it asks again."""
    note(_left, session, None)


def address_of(session: str | None) -> str:
    """Where a session is from; "" where nobody has said so."""
    return _addresses.get(session, "")


def address() -> str:
    """On whose behalf this thread computes; "" for nobody that is known."""
    return address_of(_current.get().session)


def asked_at() -> float:
    """When it was asked for what this thread computes: now, where nobody has looked."""
    at = _current.get().at
    return time.monotonic() if at is None else at


def is_here() -> bool:
    """Whether anybody may still want what this thread computes."""
    return _current.get().session not in _left


@contextmanager
def on_behalf_of(asked: Asked) -> Iterator[None]:
    token = _current.set(asked)
    try:
        yield
    finally:
        _current.reset(token)


def each_on_behalf_of(asked: Asked, work: Iterable[T]) -> Iterator[T]:
    """Whichever thread asks for the next of them."""
    steps = iter(work)
    while True:
        with on_behalf_of(asked):
            try:
                step = next(steps)
            except StopIteration:
                return
        yield step


def note(sessions: "OrderedDict[str | None, T]", session: str | None, value: T) -> None:
    """Keep it for the sessions that were noted last."""
    sessions[session] = value
    sessions.move_to_end(session)
    while len(sessions) > MOST_SESSIONS:
        sessions.popitem(last=False)
