"""Whose turn it is: training, starting and exporting happen one at a time.

torch.export patches nn.Module for the whole process while it traces, and seeding is global too, so two
visitors at once would spoil each other's networks. It costs nothing: steps this small hold Python's lock
anyway. A turn of training is one frame, about 40 ms; an export takes two seconds. Whatever is computed in a turn, be it
trained, measured or exported, has the same threads. Only one of each address stands in the line for all; the others
stand in a line of their own.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from weakref import WeakValueDictionary

from app.lab.threads import fix_threads
from app.runs.fair import address, is_here

LOOK_UP_SECONDS = 0.05


class NobodyWaits(Exception):
    """The visitor has left before their turn came."""


class Line:
    """Whoever came first has the turn."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._tickets: deque[threading.Event] = deque()  # the first is set

    def __len__(self) -> int:
        """How many have the turn or wait for it."""
        return len(self._tickets)

    @contextmanager
    def turn(self, is_wanted: Callable[[], bool]) -> Iterator[bool]:
        """False, and no turn, when it is no longer wanted before it comes."""
        ticket = threading.Event()
        with self._guard:
            self._tickets.append(ticket)
            self._tickets[0].set()
        try:
            mine = False
            while not mine and is_wanted():
                mine = ticket.wait(LOOK_UP_SECONDS)
            yield mine
        finally:
            with self._guard:
                self._tickets.remove(ticket)
                if self._tickets:
                    self._tickets[0].set()


_for_all = Line()
_of_addresses: "WeakValueDictionary[str, Line]" = WeakValueDictionary()
_guard = threading.Lock()


def in_line() -> int:
    """How many have the turn or wait for it: all of our own address, and one of each other."""
    return len(_for_all) + max(len(_of_address()) - 1, 0)


@contextmanager
def exclusive(is_wanted: Callable[[], bool] | None = None) -> Iterator[bool]:
    """Stand in line for the turn; False, and no turn, when it is no longer wanted before it comes.

    Raises:
        NobodyWaits: nobody said when it is wanted, and the visitor has left.
    """
    wanted = is_wanted or is_here
    with ExitStack() as both:
        mine = both.enter_context(_of_address().turn(wanted)) and both.enter_context(_for_all.turn(wanted))
        if not (mine or is_wanted):
            raise NobodyWaits
        fix_threads()
        yield mine


def _of_address() -> Line:
    with _guard:
        return _of_addresses.setdefault(address(), Line())
