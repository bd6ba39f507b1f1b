"""Whose turn it is: training, starting and exporting happen one at a time.

torch.export patches nn.Module for the whole process while it traces, and seeding is global too, so two
visitors at once would spoil each other's networks. It costs nothing: steps this small hold Python's lock
anyway. A turn of training is one frame, about 40 ms; an export takes two seconds.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LOOK_UP_SECONDS = 0.05

_guard = threading.Lock()
_line: deque[threading.Event] = deque()  # whoever is first has the turn, and a set event


def in_line() -> int:
    """How many have the turn or wait for it."""
    return len(_line)


@contextmanager
def exclusive(is_wanted: Callable[[], bool] = lambda: True) -> Iterator[bool]:
    """Stand in line for the turn; False, and no turn, when it is no longer wanted before it comes."""
    ticket = threading.Event()
    with _guard:
        _line.append(ticket)
        _line[0].set()
    try:
        mine = False
        while not mine and is_wanted():
            mine = ticket.wait(LOOK_UP_SECONDS)
        yield mine
    finally:
        with _guard:
            _line.remove(ticket)
            if _line:
                _line[0].set()
