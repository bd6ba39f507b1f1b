"""One heap for all threads, where glibc would give each of sixteen its own.

Whatever is computed is computed in turns, each in another of some hundred threads. What it leaves in one heap the next
would not find in another, and a crowd's server grew by a gigabyte of memory that nobody used.
"""

import contextlib
import ctypes

M_ARENA_MAX = -8  # malloc.h


def share() -> None:
    """From now on; elsewhere than with glibc, nothing changes."""
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)
