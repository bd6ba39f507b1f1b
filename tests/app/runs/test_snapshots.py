"""A session holds no tensors: what a run needs to go on is kept apart, and trained again where it was dropped."""

from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from app.chapters.sensitive.examination import Examination, Healing
from app.chapters.zero_gradient.chapter import Lesson
from app.lab.fit import Experiment, Settings
from app.runs import queue
from app.runs.cache import held_bytes
from app.runs.progress import STEPS_A_FRAME, Progress
from app.runs.snapshots import STEPS_A_SNAPSHOT, Snapshots, snapshots
from tests.app.same import assert_same

SHORT = Settings(steps=4 * STEPS_A_FRAME, width=8, seed=11)
POINTS = ((-1.0, 0.5), (0.0, 0.0), (1.0, 0.5), (2.0, -1.0))
MOST_BYTES = 40_000
MOST_NUMBERS = 2000  # in tensors: the gradients that the lesson shows


def healed() -> Healing:
    *_, exam = Examination(Settings(steps=40)).advance()
    return next(Healing.of_mix(exam, exam.mixes[-1]).advance())


HELD: dict[str, Callable[[], Any]] = {
    "progress": lambda: next(Progress.start(Settings(width=256)).advance()),
    "own points": lambda: next(Progress.start(Settings.of("points", points=POINTS)).advance()),
    "lesson": lambda: next(Lesson.start().advance()),
    "healing": healed,
    "examination": lambda: next(Examination(Settings.of("digits", steps=25)).advance()),
}


@pytest.mark.parametrize("what", HELD)
def test_what_a_session_holds_is_small(what: str) -> None:
    assert held_bytes(value := HELD[what]()) < MOST_BYTES
    assert sum(tensor.numel() for tensor in tensors(value)) < MOST_NUMBERS


def tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from tensors(item)
    elif is_dataclass(value):
        for field in fields(value):
            yield from tensors(getattr(value, field.name))


@pytest.mark.parametrize("step", [1, 13, 2 * STEPS_A_FRAME])
def test_a_run_whose_snapshot_was_dropped_goes_on_to_the_bit(step: int) -> None:
    *_, there = Progress.start(SHORT).advance(until=step)
    before = there.snapshot
    snapshots.forget()
    experiment = Experiment(SHORT, "cpu")
    list(experiment.run(STEPS_A_FRAME, step))
    assert_same(there.snapshot, before)
    assert_same(there.snapshot, experiment.snapshot())
    snapshots.forget()
    *_, end = there.advance()
    list(experiment.run(STEPS_A_FRAME))
    assert_same(end.snapshot, experiment.snapshot())


def test_networks_are_taken_up_in_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch's random numbers, and nn.Module while torch.export traces, are everybody's."""
    *_, there = Progress.start(SHORT).advance(until=13)
    restore, turns = Experiment.restore, list[int]()

    def watched(*arguments: Any) -> Experiment:
        turns.append(len(queue._for_all))
        return restore(*arguments)

    monkeypatch.setattr(Experiment, "restore", watched)
    list(there.advance(until=14))
    snapshots.forget()
    snapshots.keep(SHORT, 0, Progress.start(SHORT).snapshot)
    list(there.advance(until=15))
    assert turns == [1, 1, 1]


def test_training_again_stops_when_it_is_no_longer_wanted() -> None:
    *_, there = Progress.start(replace(SHORT, steps=400)).advance(until=395)
    snapshots.forget()
    asked = iter([True] * 8)
    assert list(there.advance(is_wanted=lambda: next(asked, False))) == []
    assert snapshots.nearest(there.run, 395) is None


def test_a_lesson_whose_snapshot_was_dropped_goes_on_to_the_bit() -> None:
    whole = list(Lesson.start().advance(until=24))
    there = next(Lesson.start().advance())
    snapshots.forget()
    *_, end = there.advance(until=24)
    assert end.history == whole[-1].history
    assert all(torch.equal(end.records[name].gradient, record.gradient) for name, record in whole[-1].records.items())


def test_of_each_stretch_of_steps_the_newest_stays() -> None:
    kept = Snapshots()
    for step in range(0, 2 * STEPS_A_SNAPSHOT + 30, 10):
        kept.keep("run", step, {"step": step})
    found = {kept.nearest("run", step)[0] for step in range(3 * STEPS_A_SNAPSHOT)}  # type: ignore[index]
    first, last = STEPS_A_SNAPSHOT, 2 * STEPS_A_SNAPSHOT
    assert found == {0, first - 10, first, last - 10, last, last + 20}
    assert kept.nearest("another", 10) is None
    assert (kept.at("run", 0), kept.at("run", 1)) == ({"step": 0}, None)


def test_what_was_asked_for_last_stays() -> None:
    one = {"weights": torch.zeros(1000)}
    kept = Snapshots(max_bytes=2 * held_bytes(one))
    for run in range(4):
        kept.keep(run, 0, one)
        kept.nearest(0, 0)
    assert [run for run in range(4) if kept.nearest(run, 0)] == [0, 3]
