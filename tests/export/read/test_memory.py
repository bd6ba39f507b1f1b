"""Memory of large blocks goes back to the system, and comes from it."""

import ctypes

import pytest

from export.read.memory import blocks_given_back

LIBC = ctypes.CDLL(None)


class Mallinfo(ctypes.Structure):
    """glibc's mallinfo2."""

    NAMES = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in NAMES.split()]


def in_blocks_of_their_own(size):
    """Of two blocks, how many bytes lie in no heap."""
    LIBC.mallinfo2.restype, LIBC.malloc.restype, LIBC.free.argtypes = Mallinfo, ctypes.c_void_p, [ctypes.c_void_p]
    before = LIBC.mallinfo2().hblkhd
    blocks = [LIBC.malloc(ctypes.c_size_t(size)) for _ in range(2)]
    after = LIBC.mallinfo2().hblkhd
    for block in blocks:
        LIBC.free(block)
    return after - before


@pytest.mark.skipif(not hasattr(LIBC, "mallinfo2"), reason="another C library than glibc")
def test_large_blocks_are_kept_in_no_heap_while_a_large_model_is_exported():
    size = 2**23
    with blocks_given_back():
        assert in_blocks_of_their_own(size) >= 2 * size
        assert in_blocks_of_their_own(size) >= 2 * size  # freeing them taught it nothing
    assert in_blocks_of_their_own(size) == 0
