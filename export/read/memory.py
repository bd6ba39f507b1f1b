"""Memory that nobody uses any more, given back to the system."""

import contextlib
import ctypes
from collections.abc import Iterator

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
LARGE_BLOCK, LARGEST_KEPT = 2**20, 2**25  # bytes; glibc goes as far as the latter by itself


def give_back() -> None:
    """With glibc, which keeps what was freed between pieces that are in use: after a large graph, as much as its
    weights take in float. Elsewhere nothing happens."""
    _call_libc("malloc_trim", 0)


@contextlib.contextmanager
def blocks_given_back() -> Iterator[None]:
    """With glibc, blocks of a megabyte or more go back to the system as soon as they are freed.

    It begins so and learns from what is freed to keep blocks of up to 32 MB for later, as it does afterwards. A session
    that loads a large file has freed its codes twice over before its weights are made of them.
    """
    _call_libc("mallopt", M_MMAP_THRESHOLD, LARGE_BLOCK)
    try:
        yield
    finally:
        _call_libc("mallopt", M_MMAP_THRESHOLD, LARGEST_KEPT)
        _call_libc("mallopt", M_TRIM_THRESHOLD, 2 * LARGEST_KEPT)


def _call_libc(name: str, *arguments: int) -> None:
    with contextlib.suppress(OSError, AttributeError, TypeError):
        getattr(ctypes.CDLL(None), name)(*arguments)
