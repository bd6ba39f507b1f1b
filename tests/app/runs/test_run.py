"""A visitor has one run: what it shows, and what ends it."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from app.lab.fit import TrainingDiverged
from app.runs.fair import Asked, on_behalf_of
from app.runs.run import drive, is_running, pause_run, running, stop


@dataclass(frozen=True)
class Count:
    """Work that counts up to three."""

    now: int = 0
    most: int = 3

    def advance(self, *, is_wanted: Callable[[], bool]) -> Iterator["Count"]:
        for later in range(self.now + 1, 4):
            if later > self.most:
                raise TrainingDiverged(f"stopped at {later}")
            if not is_wanted():
                return
            yield Count(later, self.most)


def page(count: Count | None, **about: Any) -> tuple[Any, ...]:
    return (count and count.now, *about.items())


def test_a_run_shows_its_start_what_follows_and_its_end() -> None:
    going = ("running", True)
    assert list(drive("counting", "", Count, page)) == [(0, going), (1, going), (2, going), (3, going), (3,)]
    assert list(drive("counting", "", Count, page, between=lambda count: count.now)) == [(0, going), 1, 2, 3, (3,)]
    assert not is_running("counting")


def test_what_went_wrong_is_shown_with_what_there_was() -> None:
    *_, last = drive("failing", "", lambda: Count(most=2), page)
    assert last == (2, ("problem", "stopped at 3"))


def test_what_cannot_start_is_said_and_nothing_runs() -> None:
    def start() -> Count:
        raise ValueError("seed=-1; expected another")

    assert list(drive("refused", "", start, page)) == [(None, ("problem", "seed=-1; expected another"))]


@pytest.mark.parametrize("offered", [None, ("offered",)])
def test_a_run_that_is_stopped_shows_what_it_was_offered(offered: tuple[str] | None) -> None:
    shown = drive("stopped", "", Count, page, seconds=60)  # however late it is stopped
    next(shown)
    asking = threading.Thread(target=stop, args=("stopped", offered))
    asking.start()
    *_, last = shown
    asking.join(5)
    assert not asking.is_alive()
    assert last in ((offered,) if offered else ((0,), (1,)))


def test_a_second_run_of_a_visitor_stops_the_first() -> None:
    stopped = threading.Event()

    def first() -> None:
        with running("twice") as run:
            started.set()
            if not run.sleep(30):
                stopped.set()

    started = threading.Event()
    thread = threading.Thread(target=first)
    thread.start()
    started.wait(5)
    with running("twice"):
        assert stopped.is_set()
    thread.join(5)


def test_the_frame_of_one_chapter_never_ends_the_run_of_another() -> None:
    ended: list[str] = []

    def work() -> None:
        with running("two", "one chapter") as run:
            started.set()
            run.sleep(60)
            ended.append(run.last_frame("own"))

    for frame, expected in (((), "own"), (("offered", "one chapter"), "offered")):
        started = threading.Event()
        thread = threading.Thread(target=work)
        thread.start()
        assert started.wait(60)
        assert not stop("two", "another", "another")
        assert is_running("two")
        assert stop("two", *frame) is bool(frame)
        thread.join(60)
        assert ended.pop() == expected


def test_a_run_that_was_asked_for_before_a_pause_and_begins_after_it_is_over_at_once() -> None:
    def begun(session: str, at: float | None) -> bool:
        with on_behalf_of(Asked(session, at)), running(session) as run:
            return run.is_wanted()

    with on_behalf_of(Asked("pausing", at=2.0)):
        pause_run("pausing")
    assert [begun("pausing", at) for at in (1.0, 3.0, None)] == [False, True, True]
    assert begun("another", 1.0)


def test_a_pause_that_comes_late_leaves_the_run_asked_for_after_it() -> None:
    with on_behalf_of(Asked("late", at=3.0)), running("late") as run:
        for at, is_wanted in ((2.0, True), (4.0, False)):
            with on_behalf_of(Asked("late", at)):
                threading.Thread(target=run.end).start()  # as the run does once it is asked
                pause_run("late")
            assert run.is_wanted() is is_wanted
