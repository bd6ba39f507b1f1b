"""The same settings are trained once, and everybody is shown the same."""

import threading
import tracemalloc
from dataclasses import replace

import pytest
import torch

from app.lab.fit import Experiment, Settings, StepRecord, TrainingDiverged
from app.runs import progress as progress_module
from app.runs.cache import Recordings, held_bytes
from app.runs.progress import STEPS_A_FRAME, Progress

SHORT = Settings(steps=4 * STEPS_A_FRAME, width=8)


@pytest.fixture
def optimized(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows with every optimizer step that is taken."""
    steps: list[int] = []
    optimize = Experiment._optimize

    def counted(self: Experiment) -> None:
        steps.append(self.step)
        optimize(self)

    monkeypatch.setattr(Experiment, "_optimize", counted)
    return steps


def trained_alone(settings: Settings) -> list[StepRecord]:
    return list(Experiment(settings, "cpu").run(STEPS_A_FRAME))


def test_the_second_visitor_is_shown_what_the_first_one_trained(optimized: list[int]) -> None:
    first = list(Progress.start(SHORT).advance())
    second = list(Progress.start(SHORT).advance())
    assert optimized == list(range(SHORT.steps))
    assert [frame.replayed for frame in first + second] == [False] * 4 + [True] * 4
    assert [frame.record for frame in first] == [frame.record for frame in second] == trained_alone(SHORT)
    assert "recorded frames of these settings" in second[-1].note(running=True)


def test_visitors_at_once_train_every_step_once(optimized: list[int]) -> None:
    shown: list[list[StepRecord]] = []
    start = Progress.start(SHORT)
    visitors = [
        threading.Thread(target=lambda: shown.append([frame.record for frame in start.advance()])) for _ in range(5)
    ]
    for visitor in visitors:
        visitor.start()
    for visitor in visitors:
        visitor.join(60)
    assert sorted(optimized) == list(range(SHORT.steps))
    assert shown == [trained_alone(SHORT)] * 5


def test_other_settings_are_another_run(optimized: list[int]) -> None:
    list(Progress.start(SHORT).advance())
    other = list(Progress.start(replace(SHORT, seed=1)).advance())
    assert len(optimized) == 2 * SHORT.steps
    assert not any(frame.replayed for frame in other)


def test_a_single_step_is_the_visitors_own_and_leads_back_to_the_common_frames() -> None:
    expected = trained_alone(SHORT)
    start = Progress.start(SHORT)
    (one_step,) = start.advance(until=1)
    after, *rest = one_step.advance()
    assert after.record.curves == expected[0].curves
    assert after.record.flips != expected[0].flips, "it counts from step 1, the common frame from step 0"
    assert [frame.record for frame in rest] == expected[1:]
    assert [frame.record for frame in Progress.start(SHORT).advance()] == expected


def test_going_on_from_a_replayed_frame_leaves_the_recording_as_it_is() -> None:
    list(Progress.start(SHORT).advance())
    replayed = next(iter(Progress.start(SHORT).advance()))
    before = {name: value.clone() for name, value in replayed.snapshot["models"]["qat"].items()}
    list(replayed.advance(until=replayed.step + 3))
    assert all(torch.equal(before[name], value) for name, value in replayed.snapshot["models"]["qat"].items())


def test_a_run_whose_recording_was_dropped_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_module, "recordings", Recordings(max_bytes=1))
    frames = Progress.start(SHORT).advance()
    seen = [next(frames).record]
    for seed in (1, 2):
        next(Progress.start(replace(SHORT, seed=seed)).advance())
        seen.append(next(frames).record)
    assert [*seen, *(frame.record for frame in frames)] == trained_alone(SHORT)


def test_the_oldest_recordings_make_room() -> None:
    frame = "a" * 1000
    kept: Recordings[str] = Recordings(max_bytes=2 * held_bytes(frame) + 100)
    all_settings = [replace(SHORT, seed=seed) for seed in range(4)]
    for settings in all_settings:
        kept.of(settings).add(0, frame)
        kept.of(all_settings[0])  # is asked for again and again
    assert [0 in kept.of(settings).frames for settings in (all_settings[0], all_settings[3])] == [True, True]
    assert 0 not in kept.of(all_settings[1]).frames


def test_divergence_is_told_to_everybody() -> None:
    settings = replace(SHORT, learning_rate=1e30)
    for _ in range(2):
        with pytest.raises(TrainingDiverged, match="training stopped at step"):
            list(Progress.start(settings).advance())


def test_what_a_recording_holds_is_counted_with_its_numbers_and_curves() -> None:
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    value = {
        "curves": [float(n) / 3 for n in range(5000)],
        "map": bytes(4096),
        "rows": tuple((n + 0.5,) for n in range(500)),
    }
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown == pytest.approx(held_bytes(value), rel=0.2)
    assert held_bytes({"w": torch.zeros(1000)}) > 4000
