"""Whose turn it is: training, starting and exporting happen one at a time.

torch.export patches nn.Module for the whole process while it traces, and seeding is global too, so two
visitors at once would spoil each other's networks. It costs nothing: steps this small hold Python's lock
anyway. A turn of training is one frame, about 40 ms; an export takes two seconds. Whatever is computed in a turn, be it
trained, measured or exported, has the same threads. Only one of each address stands in the line for all; the others
stand in a line of their own, and where they are many, their address rests after each turn while others have turns, too.
One turn each would not be fair: between two turns a run carries its frame to its visitor, which many do at once.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from weakref import WeakValueDictionary

from app.lab.threads import fix_threads
from app.runs.fair import address, is_here

LOOK_UP_SECONDS = 0.05
LONGEST_REST = 2  # turns
LONGEST_REST_SECONDS = 0.15


class NobodyWaits(Exception):
    """The visitor has left before their turn came."""


class Line:
    """Whoever came first has the turn."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._tickets: deque[threading.Event] = deque()  # the first is set
        self._rests_until = 0.0  # by time.monotonic()

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

    def rest(self, is_wanted: Callable[[], bool]) -> bool:
        """Wait as long as those who had the turn before have left it to others; False when it is no longer wanted."""
        while is_wanted():
            left = self._rests_until - time.monotonic()
            if left <= 0:
                return True
            time.sleep(min(left, LOOK_UP_SECONDS))
        return False

    def leave_to_others(self, seconds: float) -> None:
        """After a turn that took so long: the more wait here, the longer."""
        turns = min(len(self) - 1, LONGEST_REST)
        self._rests_until = time.monotonic() + min(turns * seconds, LONGEST_REST_SECONDS)


_for_all = Line()
_latest: "deque[str]" = deque(maxlen=8)  # whose turns these were
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
    own = _of_address()
    with ExitStack() as both:
        mine = both.enter_context(own.turn(wanted)) and own.rest(wanted) and both.enter_context(_for_all.turn(wanted))
        if not (mine or is_wanted):
            raise NobodyWaits
        fix_threads()
        begun = time.monotonic()
        yield mine
        if mine:
            _latest.append(address())
            if len(set(_latest)) > 1:
                own.leave_to_others(time.monotonic() - begun)


def _of_address() -> Line:
    with _guard:
        return _of_addresses.setdefault(address(), Line())
