"""Whose turn it is: training, starting and exporting happen one at a time.

torch.export patches nn.Module for the whole process while it traces, and seeding is global too, so two
visitors at once would spoil each other's networks. It costs nothing: steps this small hold Python's lock
anyway. A turn of training is one frame, about 40 ms; an export takes two seconds.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_lock = threading.Lock()
LOOK_UP_SECONDS = 0.05


@contextmanager
def turn(is_wanted: Callable[[], bool] = lambda: True) -> Iterator[bool]:
    """Wait for the turn; False, and no turn, when it is no longer wanted before it comes."""
    mine = False
    while not mine and is_wanted():
        mine = _lock.acquire(timeout=LOOK_UP_SECONDS)
    try:
        yield mine
    finally:
        if mine:
            _lock.release()
