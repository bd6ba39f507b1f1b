"""Asking a visitor's run to stop, and knowing that it has.

Gradio's `cancels=` drops the frame in flight, so the picture and the state could be a frame apart. A run
that is asked ends by itself instead: its last frame is what is kept.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

PATIENCE = 10.0  # seconds; far more than a run ever needs to end


class Run:
    """One generator at work."""

    def __init__(self) -> None:
        self._asked_to_stop = threading.Event()
        self._ended = threading.Event()

    def is_wanted(self) -> bool:
        return not self._asked_to_stop.is_set()

    def sleep(self, seconds: float) -> bool:
        """Wait; False as soon as the run is asked to stop."""
        return not self._asked_to_stop.wait(max(seconds, 0.0))

    def stop(self) -> None:
        """Ask, and wait until the run's last frame has been sent."""
        self._asked_to_stop.set()
        self._ended.wait(PATIENCE)

    def end(self) -> None:
        self._ended.set()


_runs: dict[str | None, Run] = {}


@contextmanager
def running(session: str | None) -> Iterator[Run]:
    """The visitor's run; one that is still at work is stopped first."""
    stop(session)
    run = _runs[session] = Run()
    try:
        yield run
    finally:
        if _runs.get(session) is run:
            del _runs[session]
        run.end()


def stop(session: str | None) -> None:
    """End the visitor's run, if there is one."""
    run = _runs.get(session)
    if run:
        run.stop()


def is_running(session: str | None) -> bool:
    return session in _runs
