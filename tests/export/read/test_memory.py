"""Memory of large blocks goes back to the system, and comes from it."""

import ctypes
import json
import subprocess
import sys

import pytest

from export.read import memory

# In a process of its own: a heap that has room takes no block from the system.
SCRIPT = """
import ctypes, json, runpy, sys
blocks_given_back = runpy.run_path(sys.argv[1])["blocks_given_back"]
libc = ctypes.CDLL(None)
names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"  # of mallinfo2
fields = [(name, ctypes.c_size_t) for name in names.split()]
libc.mallinfo2.restype = type("mallinfo2", (ctypes.Structure,), {"_fields_": fields})
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]

def beside_the_heap():
    before = libc.mallinfo2().hblkhd
    blocks = [libc.malloc(ctypes.c_size_t(2**23)) for _ in range(2)]
    found = libc.mallinfo2().hblkhd - before
    for block in blocks:
        libc.free(block)
    return found // 2**23

with blocks_given_back():
    found = [beside_the_heap(), beside_the_heap()]  # freeing them taught it nothing
print(json.dumps([*found, beside_the_heap()]))
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="another C library than glibc 2.33 or newer")
def test_large_blocks_are_kept_in_no_heap_while_a_large_model_is_exported():
    command = [sys.executable, "-c", SCRIPT, memory.__file__]
    assert json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout) == [2, 2, 0]
