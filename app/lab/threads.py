"""How many threads an experiment computes with, wherever it runs.

The last bits of a sum depend on how many threads share it, and training makes another network of another last bit.
The same settings give the same numbers only where the number of threads is always the same. It is one, because on
matrices this small a second thread only waits.
"""

import torch

THREADS = 1


def fix_threads() -> None:
    """Compute with THREADS threads from here on, in the thread that asks.

    Whoever computes asks for it: OpenMP and MKL count for each thread of the program apart, and what
    `torch.set_num_threads` says in one is not known to the first matrix product in the next.
    """
    torch.set_num_threads(THREADS)
