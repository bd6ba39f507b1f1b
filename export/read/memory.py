"""Memory that nobody uses any more, given back to the system."""

import contextlib
import ctypes
from collections.abc import Iterator

M_MMAP_THRESHOLD, LARGE_BLOCK, LARGEST_THRESHOLD = -3, 2**20, 2**25  # the last is as far as glibc goes by itself


def give_back() -> None:
    """With glibc, which keeps what was freed between pieces that are in use: after a large graph, as much as its
    weights take in float. Elsewhere nothing happens."""
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


@contextlib.contextmanager
def blocks_given_back() -> Iterator[None]:
    """With glibc, blocks of a megabyte or more go back to the system as soon as they are freed.

    It begins so and learns from what is freed to keep blocks of up to 32 MB for later, as it does afterwards. A session
    that loads a large file has freed its codes twice over before its weights are made of them.
    """
    _set_threshold(LARGE_BLOCK)
    try:
        yield
    finally:
        _set_threshold(LARGEST_THRESHOLD)


def _set_threshold(size: int) -> None:
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, size)
