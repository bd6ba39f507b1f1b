"""Turns are shared among addresses: whoever runs fifty networks waits for their own, and a newcomer for one of them.

Whatever is computed is computed on behalf of a session, and ends when its visitor has left.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

T = TypeVar("T")

MOST_SESSIONS = 10_000

_addresses: "OrderedDict[str | None, str]" = OrderedDict()
_left: "OrderedDict[str | None, None]" = OrderedDict()
_current: ContextVar[str | None] = ContextVar("session", default=None)


def know(session: str, address: str) -> None:
    """Where a session is from, which asks for something just now."""
    _left.pop(session, None)
    _note(_addresses, session, address)


def part_from(session: str) -> None:
    """Nobody reads what it has asked for, until it asks again."""
    _note(_left, session, None)


def address_of(session: str | None) -> str:
    """Where a session is from; "" where nobody has said so."""
    return _addresses.get(session, "")


def address() -> str:
    """On whose behalf this thread computes; "" for nobody that is known."""
    return address_of(_current.get())


def is_here() -> bool:
    """Whether anybody may still want what this thread computes."""
    return _current.get() not in _left


@contextmanager
def on_behalf_of(session: str | None) -> Iterator[None]:
    token = _current.set(session)
    try:
        yield
    finally:
        _current.reset(token)


def each_on_behalf_of(session: str | None, work: Iterable[T]) -> Iterator[T]:
    """Whichever thread asks for the next of them."""
    steps = iter(work)
    while True:
        with on_behalf_of(session):
            try:
                step = next(steps)
            except StopIteration:
                return
        yield step


def _note(sessions: "OrderedDict[str | None, T]", session: str, value: T) -> None:
    sessions[session] = value
    sessions.move_to_end(session)
    while len(sessions) > MOST_SESSIONS:
        sessions.popitem(last=False)
