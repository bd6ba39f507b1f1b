"""Run, Pause, Step, Reset: the handlers."""

import json
import threading
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from app import training
from app.handlers import pause, unchanged
from app.lab.fit import Experiment, Settings, TrainingDiverged
from app.runs.messages import PRESETS, broken
from app.runs.progress import STEPS_A_FRAME, Progress
from app.runs.queue import exclusive
from app.runs.run import stop

DEFAULTS = (4, "per_tensor", 0.1, 0)  # bits, granularity, noise, seed: as on the page
NOT_BROKEN = training.NOT_BROKEN


def visitor(name: str) -> gr.Request:
    return SimpleNamespace(session_hash=name)  # type: ignore[return-value]


@pytest.fixture
def fresh() -> Progress:
    return Progress.start(Settings())


@pytest.fixture(scope="module")
def late() -> Progress:
    *_, progress = Progress.start(Settings()).advance(until=100)
    return progress


# --- what is broken on purpose ---------------------------------------------------------------------


def test_what_is_broken_leaves_the_visitors_own_network_alone(fresh: Progress) -> None:
    for preset in filter(None, PRESETS):
        shown, own, broken_run = training.train_one_step(fresh, None, preset, *DEFAULTS)
        assert json.loads(shown)["preset"] == preset
        assert own == gr.skip()
        assert (broken_run.step, broken_run.settings) == (1, broken(Settings(), preset))
        again = training.train_one_step(fresh, broken_run, preset, *DEFAULTS)
        assert again[2].step == 2
        shown, own, broken_run = training.follow_preset(visitor("healing"), fresh, broken_run, NOT_BROKEN, *DEFAULTS)
        assert own is fresh


def test_an_unknown_preset_gets_a_sentence(fresh: Progress) -> None:
    shown, *_ = training.train_one_step(fresh, None, "worse", *DEFAULTS)
    assert "preset='worse'; expected one of rate, fine, coarse" in json.loads(shown)["problem"]


def test_new_settings_end_the_breaking(fresh: Progress) -> None:
    shown, own, _, preset = training.follow_settings(visitor("new"), fresh, 8, "per_channel", 0.1, 0)
    assert own.settings == Settings(bits=8, granularity="per_channel")
    assert (json.loads(shown)["preset"], preset) == (NOT_BROKEN, NOT_BROKEN)


# --- the handlers -----------------------------------------------------------------------------------


def test_going_on_after_a_pause_changes_nothing(fresh: Progress) -> None:
    *_, at_once = fresh.advance(until=2 * STEPS_A_FRAME)
    *_, before = fresh.advance(until=STEPS_A_FRAME)
    *_, after = before.advance(until=2 * STEPS_A_FRAME)
    assert after.record.mse_train == at_once.record.mse_train
    assert after.record.curves == at_once.record.curves


def test_step_is_one_optimizer_step_and_leaves_the_state_it_was_given(fresh: Progress) -> None:
    shown, after, _ = training.train_one_step(fresh, None, NOT_BROKEN, *DEFAULTS)
    assert (json.loads(shown)["step"], after.step, fresh.step) == (1, 1, 0)


def test_pause_ends_the_run_with_the_frame_that_is_kept(fresh: Progress) -> None:
    request = visitor("pausing")
    frames = training.train(request, fresh, None, NOT_BROKEN, *DEFAULTS)
    next(frames)
    asking = threading.Thread(target=pause, args=(request,))
    asking.start()
    *_, last = frames
    asking.join(5)
    assert not asking.is_alive()
    shown, kept = json.loads(last[0]), last[1]
    assert not shown["running"]
    assert shown["step"] == kept.step < kept.record.steps
    assert shown["noisy"]  # a whole frame


@pytest.mark.parametrize("preset", [NOT_BROKEN, "coarse"])
@pytest.mark.parametrize(
    ("settings", "shown"),
    [(DEFAULTS, {"step": 0, "problem": ""}), ((4, "per_tensor", 0.1, -1), {"problem": "seed=-1; expected"})],
)
def test_a_run_shows_what_ends_it_as_its_last_frame(
    fresh: Progress, settings: tuple[Any, ...], shown: dict[str, Any], preset: str
) -> None:
    request = visitor("resetting")
    frames = training.train(request, fresh, None, preset, *DEFAULTS)
    next(frames)
    answers: list[Any] = []
    asking = threading.Thread(
        target=lambda: answers.append(training.start_anew(request, fresh, None, NOT_BROKEN, *settings))
    )
    asking.start()
    *_, last = frames
    asking.join(5)
    assert answers == [unchanged(3)]
    found = json.loads(last[0])
    assert found["problem"].startswith(shown["problem"])
    assert not found["running"]
    assert last[1].step == 0


def test_pause_does_not_wait_for_somebody_elses_turn(fresh: Progress) -> None:
    request = visitor("waiting")
    frames = training.train(request, fresh, None, NOT_BROKEN, 8, "per_tensor", 0.15, 4)
    next(frames)
    with exclusive():
        asking = threading.Thread(target=pause, args=(request,))
        asking.start()
        *_, last = frames
    asking.join(5)
    assert last[1].step == 0


def test_a_run_that_was_left_is_forgotten(fresh: Progress) -> None:
    frames = training.train(visitor("leaving"), fresh, None, NOT_BROKEN, *DEFAULTS)
    next(frames)
    frames.close()
    stop("leaving")  # would wait if the run still counted as being at work


def test_run_honours_settings_that_the_state_has_not_seen(fresh: Progress) -> None:
    frames = training.train(visitor("eager"), fresh, None, NOT_BROKEN, 8, "per_channel", 0.2, 5)
    (_, at_once, _), (_, later, _) = next(frames), next(frames)
    frames.close()
    assert at_once.settings == later.settings == Settings(bits=8, granularity="per_channel", noise=0.2, seed=5)
    assert (at_once.step, later.step) == (0, STEPS_A_FRAME)


def test_run_at_the_end_begins_again(fresh: Progress) -> None:
    ended = fresh._replace(record=replace(fresh.record, step=fresh.record.steps))
    frames = training.train(visitor("again"), ended, None, NOT_BROKEN, *DEFAULTS)
    _, first, _ = next(frames)
    frames.close()
    assert first.step == 0


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ((4, "per_tensor", 0.1, -1), "seed=-1; expected a whole number"),
        ((4, "per_tensor", 0.1, 1.5), "seed=1.5; expected a whole number"),
        ((4, "per_tensor", 0.1, None), "seed is empty; expected a whole number"),
        ((5, "per_tensor", 0.1, 0), "bits=5; expected one of"),
        ((4, "per_tensor", -3, 0), "noise=-3; expected a number"),
        ((4, "per_row", 0.1, 0), "granularity='per_row'"),
    ],
)
def test_a_bad_setting_gets_a_sentence_and_keeps_the_progress(
    fresh: Progress, settings: tuple[Any, ...], sentence: str
) -> None:
    for outputs in (
        training.train_one_step(fresh, None, NOT_BROKEN, *settings),
        training.start_anew(visitor("bad"), fresh, None, NOT_BROKEN, *settings),
        training.follow_settings(visitor("bad"), fresh, *settings),
        training.follow_preset(visitor("bad"), fresh, None, "coarse", *settings),
        *training.train(visitor("bad"), fresh, None, NOT_BROKEN, *settings),
    ):
        assert sentence in json.loads(outputs[0])["problem"]
        assert outputs[1] is fresh


def test_divergence_gets_a_sentence(fresh: Progress, monkeypatch: pytest.MonkeyPatch) -> None:
    def diverge(self: Experiment) -> None:
        raise TrainingDiverged("training stopped at step 1: the QAT loss is nan")

    monkeypatch.setattr(Experiment, "_optimize", diverge)
    *_, outputs = training.train(visitor("diverging"), fresh, None, NOT_BROKEN, 4, "per_tensor", 0.35, 77)
    assert json.loads(outputs[0])["problem"].startswith("training stopped at step 1")


def test_a_chapter_that_comes_into_sight_is_told_how_far_the_others_went(late: Progress) -> None:
    shown = json.loads(training.catch_up(late))
    assert (shown["step"], shown["preset"], shown["unasked"], shown["running"]) == (100, NOT_BROKEN, True, False)
