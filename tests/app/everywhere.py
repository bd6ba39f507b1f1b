"""What test_threads.py runs in a process of its own: the same settings in several places.

Prints as JSON what each of them ended with: {place: [metrics, fingerprint of all weights]}. The terminal says only the
metrics.
"""

import contextlib
import hashlib
import io
import json
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Thread
from typing import Any, TypeVar

from app.lab.__main__ import main
from app.lab.fit import MODELS, Experiment, Settings
from app.runs.progress import Progress

# Large enough that MKL splits a product of matrices among four threads, and small enough that a new thread reaches its
# first product before torch has told it of any number of threads.
SETTINGS = Settings(steps=20, width=100)
ARGUMENTS = ("--steps", "20", "--width", "100", "--device", "cpu")

Numbers = dict[str, dict[str, float]]
T = TypeVar("T")


def experiment(settings: Settings = SETTINGS) -> tuple[Numbers, str]:
    """Made here, trained in other threads."""
    experiment = Experiment(settings, "cpu")
    record = last(experiment.run(every=10))
    return by_model(record.metrics), fingerprint(experiment.snapshot())


def page(settings: Settings = SETTINGS) -> tuple[Numbers, str]:
    """As a visitor sees it; any thread may be the one that goes on."""
    progress = last(Progress.start(settings).advance())
    return by_model(progress.record.metrics), fingerprint(progress.snapshot)


def terminal() -> Numbers:
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()) as printed:
        assert main([*ARGUMENTS, "--json", "--out", folder]) == 0
    result = json.loads(printed.getvalue())
    return {name: result[name] for name in MODELS}


def by_model(metrics: Numbers) -> Numbers:
    return {name: {metric: values[name] for metric, values in metrics.items()} for name in MODELS}


def fingerprint(snapshot: dict[str, Any]) -> str:
    tensors = (tensor for weights in snapshot["models"].values() for tensor in weights.values())
    return hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in tensors)).hexdigest()


def last(frames: Iterable[T]) -> T:
    """The last of them, each made in a new thread."""
    seen: list[T] = []
    frames = iter(frames)
    while True:
        before = len(seen)
        thread = Thread(target=lambda: seen.extend(next(([frame] for frame in frames), [])))
        thread.start()
        thread.join()
        if len(seen) == before:
            return seen[-1]


def at_once(*works: Callable[[], T]) -> list[T]:
    with ThreadPoolExecutor(len(works)) as pool:
        return [future.result() for future in [pool.submit(work) for work in works]]


if __name__ == "__main__":
    found = {"terminal": [terminal()], "threads": experiment()}
    found["page"], _ = at_once(page, lambda: page(replace(SETTINGS, seed=1)))
    print(json.dumps(found))
