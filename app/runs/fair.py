"""Turns are shared among addresses: whoever runs fifty networks waits for their own, and a newcomer for one of them."""

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

T = TypeVar("T")

MOST_SESSIONS = 10_000

_addresses: "OrderedDict[str | None, str]" = OrderedDict()
_current: ContextVar[str] = ContextVar("address", default="")


def know(session: str, address: str) -> None:
    """Where a session is from."""
    _addresses[session] = address
    _addresses.move_to_end(session)
    while len(_addresses) > MOST_SESSIONS:
        _addresses.popitem(last=False)


def address_of(session: str | None) -> str:
    """Where a session is from; "" where nobody has said so."""
    return _addresses.get(session, "")


def address() -> str:
    """On whose behalf this thread computes; "" for nobody that is known."""
    return _current.get()


@contextmanager
def on_behalf_of(session: str | None) -> Iterator[None]:
    token = _current.set(address_of(session))
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
