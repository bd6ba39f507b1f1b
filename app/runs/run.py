"""A visitor's run: driving it, asking it to stop, and knowing that it has.

While a run is at work, it alone writes to the page. Gradio's `cancels=` drops the frame in flight, so the
picture and the state could be a frame apart; and when a generator ends, Gradio sends its last frame once
more, which would cover what another handler has shown by then. So a run that is asked ends by itself, and
whoever asks may hand it the last frame to show.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from app.lab.fit import TrainingDiverged
from app.runs.fair import asked_at, note, part_from

T = TypeVar("T")

PATIENCE = 10.0  # seconds; far more than a run ever needs to end


class Run:
    """One generator at work; of the chapter that its frames are for, and asked for when the visitor did."""

    def __init__(self, chapter: str) -> None:
        self.chapter = chapter
        self.asked_at = asked_at()
        self._asked_to_stop = threading.Event()
        self._ended = threading.Event()
        self._offered: Any = None
        self._shown: Any = None

    def is_wanted(self) -> bool:
        return not self._asked_to_stop.is_set()

    def sleep(self, seconds: float) -> bool:
        """Wait; False as soon as the run is asked to stop."""
        return not self._asked_to_stop.wait(max(seconds, 0.0))

    def paced(self, work: Iterable[T], seconds: float = 0.0) -> Iterator[T]:
        """The frames of the work, no more than one every so many seconds, until the run is asked to stop.

        A frame that comes late is made up for.
        """
        due = time.monotonic()
        for frame in work:
            yield frame
            due = max(due + seconds, time.monotonic() - seconds)
            if not self.sleep(due - time.monotonic()):
                return

    def last_frame(self, own: Any) -> Any:
        """What the run shows last: the frame that whoever stopped it has offered, or its own."""
        self._shown = self._offered or own
        return self._shown

    def ask_to_stop(self) -> None:
        self._asked_to_stop.set()

    def stop(self, last_frame: Any = None) -> bool:
        """Ask, and wait until the run has ended; whether it showed the frame offered to it."""
        if last_frame is not None:
            self._offered = last_frame
        self.ask_to_stop()
        self._ended.wait(PATIENCE)
        return last_frame is not None and self._shown is last_frame

    def end(self) -> None:
        self._ended.set()


class Work(Protocol):
    """An experiment as it is now."""

    def advance(self, *, is_wanted: Callable[[], bool]) -> Iterator[Any]:
        """As it is later and later, until it ends or is no longer wanted."""


def drive(
    session: str | None,
    chapter: str,
    start: Callable[[], Work],
    page: Callable[..., T],
    seconds: float = 0.0,
    between: Callable[[Any], T] | None = None,
) -> Iterator[T]:
    """All that a run shows: `start()`, then what comes of it, and what it ends with.

    Args:
        session, chapter: as `running` takes them.
        start: what is to go on; its ValueError is shown, and nothing runs.
        page: the outputs for what there is now, or for None where nothing started; it is told `running=True` while
            more follows, and the `problem` when something went wrong.
        seconds: that a frame stays at least.
        between: the outputs for what follows, where `page` sends more than a frame in passing needs.
    """
    with running(session, chapter) as run:
        now = None
        try:
            now = started = start()
            yield page(now, running=True)
            for now in run.paced(started.advance(is_wanted=run.is_wanted), seconds):
                yield between(now) if between else page(now, running=True)
            last = page(now)
        except (ValueError, TrainingDiverged) as error:
            last = page(now, problem=str(error))
        yield run.last_frame(last)


_runs: dict[str | None, Run] = {}
_paused: "OrderedDict[str | None, float]" = OrderedDict()  # when, by the clock of `asked_at`


@contextmanager
def running(session: str | None, chapter: str = "") -> Iterator[Run]:
    """The visitor's run; one that is still at work, in whichever chapter, is stopped first.

    One that was asked for before the last pause, and has waited in a queue while that came, begins as a stopped one.
    """
    stop(session)
    run = _runs[session] = Run(chapter)
    if run.asked_at < _paused.get(session, 0.0):
        run.ask_to_stop()
    try:
        yield run
    finally:
        if _runs.get(session) is run:
            del _runs[session]
        run.end()


def pause_run(session: str | None) -> None:
    """End whatever run was asked for before this was, though it may wait in a queue; it shows its last frame itself."""
    at = asked_at()
    note(_paused, session, at)
    if (run := _runs.get(session)) and run.asked_at <= at:
        run.stop()


def stop(session: str | None, last_frame: Any = None, chapter: str = "") -> bool:
    """End the visitor's run, if there is one; whether it showed the frame offered to it.

    A frame is of a chapter, and the run of another goes on: several chapters follow a setting, and the one that the
    run belongs to has the frame that fits.
    """
    run = _runs.get(session)
    return run.stop(last_frame) if run and chapter in ("", run.chapter) else False


def leave(session: str) -> None:
    """Nobody looks any more: what is computed for it ends by itself, and nobody waits for that."""
    part_from(session)
    if run := _runs.get(session):
        run.ask_to_stop()


def stop_all() -> None:
    """Ask all runs to end, and wait for none of them."""
    for run in list(_runs.values()):
        run.ask_to_stop()


def is_running(session: str | None) -> bool:
    return session in _runs
