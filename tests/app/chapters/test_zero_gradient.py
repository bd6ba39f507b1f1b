"""The chapter's handlers without a browser."""

import base64
import json
import threading
from types import SimpleNamespace
from typing import Any

import gradio as gr
import numpy as np
import pytest

from app.chapters.zero_gradient import chapter as zero_gradient
from app.chapters.zero_gradient.chapter import STEPS_A_FRAME, Lesson, frame
from app.handlers import pause, unchanged
from app.lab.estimators import Estimators
from app.lab.fit import TrainingDiverged
from app.runs.run import running


def visitor(name: str) -> gr.Request:
    return SimpleNamespace(session_hash=name)  # type: ignore[return-value]


def event(**data: Any) -> gr.EventData:
    return gr.EventData(None, data)


@pytest.fixture(scope="module")
def fresh() -> Lesson:
    return Lesson.start()


def test_a_frame_is_strict_json_and_small(fresh: Lesson) -> None:
    *_, late = fresh.advance(until=5 * STEPS_A_FRAME)
    text = frame(late)
    shown = json.loads(text, parse_constant=pytest.fail)
    assert [row[0] for row in shown["history"]] == [0, 8, 16, 24, 32, 40]
    assert len(text) < 20_000


def test_a_zero_is_shown_only_where_the_gradient_is_exactly_zero(fresh: Lesson) -> None:
    shown = json.loads(frame(fresh))
    for rule, record in fresh.records.items():
        levels = np.frombuffer(base64.b64decode(shown["rules"][rule]["gradient"]), np.int8).reshape(16, 16)
        assert ((levels == 0) == (record.gradient.numpy() == 0)).all()
    assert shown["rules"]["round"]["largest"] == 0


def test_train_ends_where_it_says_and_then_begins_again(fresh: Lesson, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zero_gradient, "STEPS", 2 * STEPS_A_FRAME)
    monkeypatch.setattr(zero_gradient, "SECONDS_A_FRAME", 0)
    *_, last = zero_gradient.train(visitor("training"), fresh, "weights")
    assert (last[1].step, fresh.step) == (2 * STEPS_A_FRAME, 0)
    words = json.loads(last[0])["words"]
    assert "0 of 288 weights moved. Nothing moved at all: the loss is what it was at step 0" in words
    _, after = zero_gradient.train_one_step(last[1], "weights")
    assert after.step == 2 * STEPS_A_FRAME
    first, *_ = zero_gradient.train(visitor("training"), last[1], "weights")
    assert first[1].step == 0


def test_pause_ends_the_run_with_the_frame_that_is_kept(fresh: Lesson) -> None:
    request = visitor("pausing zero")
    frames = zero_gradient.train(request, fresh, "weights")
    next(frames)
    asking = threading.Thread(target=pause, args=(request,))
    asking.start()
    *_, last = frames
    asking.join(5)
    assert not asking.is_alive()
    assert not json.loads(last[0])["running"]
    assert json.loads(last[0])["step"] == last[1].step < 400


def test_step_is_one_step_and_what_may_learn_starts_anew(fresh: Lesson) -> None:
    shown, after, *_ = zero_gradient.train_one_step(fresh, "weights")
    assert (json.loads(shown)["step"], after.step, fresh.step) == (1, 1, 0)
    shown, other, *_ = zero_gradient.start_anew(visitor("choosing"), after, "biases")
    assert (json.loads(shown)["step"], other.free) == (0, "biases")
    shown, after, *_ = zero_gradient.train_one_step(other, "biases")
    record, before = after.records["round"], other.records["round"]
    words = json.loads(shown)["words"]
    moved = f"{record.still['biases'].moved} of {record.still['biases'].count} biases moved"
    assert f"{moved}: the loss was {before.loss:.3g} at step 0 and is {record.loss:.3g}." in words
    _, other, *_ = zero_gradient.train_one_step(after, "scales")
    assert (other.step, other.free) == (1, "scales")


def test_a_step_may_overtake_the_choice_before_it(fresh: Lesson) -> None:
    _, after = zero_gradient.train_one_step(fresh, "biases")
    assert zero_gradient.follow_choice(visitor("overtaken"), after, "biases") == unchanged(2)
    _, other = zero_gradient.follow_choice(visitor("choosing"), after, "scales")
    assert (other.step, other.free) == (0, "scales")


def test_reset_is_shown_by_the_run_that_it_stops(fresh: Lesson) -> None:
    request = visitor("resetting zero")
    frames = zero_gradient.train(request, fresh, "weights")
    next(frames)
    answers: list[Any] = []
    asking = threading.Thread(target=lambda: answers.append(zero_gradient.start_anew(request, fresh, "weights")))
    asking.start()
    *_, last = frames
    asking.join(5)
    assert answers == [unchanged(2)]
    assert last[1].step == 0


def test_a_weight_is_cut_along_and_stays_chosen(fresh: Lesson) -> None:
    shown, lesson, *_ = zero_gradient.cut(visitor("cutting"), event(row=3, col=4), fresh, "weights")
    assert (json.loads(shown)["cut"]["row"], json.loads(shown)["cut"]["col"]) == (3, 4)
    later = next(lesson.advance(until=1))
    assert (later.cut.row, later.cut.col) == (3, 4)
    assert fresh.cut != later.cut


def test_the_cut_follows_what_learned() -> None:
    lesson = Lesson.start("biases")
    _, after, *_ = zero_gradient.train_one_step(lesson, "biases")
    assert after.cut.loss == pytest.approx(after.records["round"].loss, rel=1e-5)
    assert after.cut.loss != lesson.cut.loss
    assert (after.cut.row, after.cut.col) == (lesson.cut.row, lesson.cut.col)


def test_a_run_at_work_alone_writes_to_the_page(fresh: Lesson) -> None:
    with running("cutting a run"):
        outputs = zero_gradient.cut(visitor("cutting a run"), event(row=3, col=4), fresh, "weights")
    assert outputs == unchanged(2)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ({}, "row=None, col=None; expected two whole numbers"),
        ({"row": 1.5, "col": 0}, "row=1.5, col=0; expected two whole numbers"),
        ({"row": True, "col": 0}, "expected two whole numbers"),
        ({"row": 16, "col": 0}, "row=16, col=0; expected whole numbers from 0 to 15"),
        ({"row": "x" * 500, "col": 0}, "expected two whole numbers"),
    ],
)
def test_what_the_browser_sends_is_checked(fresh: Lesson, data: dict[str, Any], sentence: str) -> None:
    shown, lesson, *_ = zero_gradient.cut(visitor("bad zero"), event(**data), fresh, "weights")
    assert sentence in json.loads(shown)["problem"]
    assert lesson is fresh


def test_a_choice_that_is_not_on_the_page_gets_a_sentence(fresh: Lesson) -> None:
    for outputs in (
        zero_gradient.train_one_step(fresh, "everything"),
        zero_gradient.start_anew(visitor("odd"), fresh, "everything"),
        *zero_gradient.train(visitor("odd"), fresh, "everything"),
    ):
        assert "free='everything'; expected one of" in json.loads(outputs[0])["problem"]
        assert outputs[1] is fresh


def test_divergence_gets_a_sentence(fresh: Lesson, monkeypatch: pytest.MonkeyPatch) -> None:
    def diverge(self: Estimators, name: str) -> float:
        raise TrainingDiverged("training stopped at step 1: the loss of 'ste' is not finite")

    monkeypatch.setattr(Estimators, "_backward", diverge)
    *_, outputs = zero_gradient.train(visitor("diverging zero"), fresh, "weights")
    assert json.loads(outputs[0])["problem"].startswith("training stopped at step 1")
