"""Training on a GPU that is lent for seconds, as ZeroGPU does: in slices, from which all that was learned comes back.

What runs inside has a process and a GPU of its own. Plain arrays go in and come out, so the state that comes back is
the state that goes on, here or there.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from app.lab.fit import Experiment, StepRecord

SECONDS_A_SLICE = 2.0
SECONDS_ASKED_FOR = 10  # of the quota at most: the slice, and what it takes to start

Arrays = dict[str, Any]


def train(state: Arrays, every: int, until: int) -> Iterator[tuple[StepRecord, Arrays]]:
    """A slice of a run: every so many steps a record and the state, up to step `until` or to the end of the slice."""
    experiment = Experiment.restore(to_tensors(state), state["settings"].device)
    end = time.monotonic() + SECONDS_A_SLICE
    for record in experiment.run(every, until):
        yield record, to_arrays(experiment.snapshot())
        if time.monotonic() > end:
            return


def register() -> Callable[..., Iterator[tuple[StepRecord, Arrays]]]:
    """`train` as ZeroGPU runs it. A Space with ZeroGPU starts only if it finds such a function while it loads."""
    with contextlib.suppress(ImportError):
        import spaces

        lent: Callable[..., Iterator[tuple[StepRecord, Arrays]]] = spaces.GPU(duration=SECONDS_ASKED_FOR)(train)
        return lent
    return train


train_slice = register()


def to_arrays(value: Any) -> Any:
    """The same dict of dicts with arrays for tensors."""
    if isinstance(value, Tensor):
        return value.cpu().numpy()
    return {key: to_arrays(item) for key, item in value.items()} if isinstance(value, dict) else value


def to_tensors(value: Any) -> Any:
    """The same dict of dicts with tensors for arrays."""
    if isinstance(value, dict):
        return {key: to_tensors(item) for key, item in value.items()}
    return torch.from_numpy(value) if hasattr(value, "__array__") else value
