"""Chapter "your turn": points, module and questions; without a browser."""

import base64
import json
import tempfile
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import numpy as np
import onnxruntime
import pytest

from app.chapters.your_turn import chapter as your_turn
from app.chapters.your_turn.module import module_frame, module_source
from app.handlers import unchanged
from app.lab.fit import Experiment, Settings
from app.runs.progress import Progress, recordings
from app.runs.run import stop
from export import audit

PAGE = (4, "per_channel", 0.1, 0)  # bits, granularity, noise, seed
POINTS = tuple((1900.0 + n, 10.0 * (n % 16)) for n in range(64))
DRAWN = json.dumps({"name": "mine, of May", "points": POINTS})


def visitor(name: str) -> gr.Request:
    return SimpleNamespace(session_hash=name)  # type: ignore[return-value]


def upload(text: str | bytes, name: str = "mine.csv") -> gr.EventData:
    data = text.encode() if isinstance(text, str) else text
    return event({"name": name, "data": base64.b64encode(data).decode()})


def event(sent: Any) -> gr.EventData:
    return SimpleNamespace(_data=sent)  # type: ignore[return-value]


@pytest.fixture(scope="module")
def own() -> Progress:
    *_, trained = Progress.start(your_turn.settings_of(POINTS, PAGE)).advance(until=50)
    return trained


# --- your own curve -------------------------------------------------------------------------------


def test_the_points_and_the_settings_of_the_page_are_trained() -> None:
    request = visitor("training")
    frames = your_turn.train(request, DRAWN, None, *PAGE)
    next(frames), next(frames)
    asking = threading.Thread(target=stop, args=(request.session_hash,))
    asking.start()
    *_, last = frames
    asking.join(5)
    frame, own = json.loads(last[0], parse_constant=pytest.fail), last[1]
    assert own.settings.points == POINTS
    assert (own.settings.bits, own.settings.granularity) == PAGE[:2]
    assert frame["step"] == own.step > 0
    assert set(frame["error"]) == {"fp32", "ptq", "qat"}
    assert frame["error"]["qat"] == own.record.mse_train["qat"] ** 0.5
    assert len(frame["curves"]["qat"]) == 128
    assert len(last[0]) < 8000


def test_other_points_or_settings_start_anew(own: Progress) -> None:
    assert your_turn.up_to_date(own, DRAWN, PAGE) is own
    moved = json.dumps({"name": "mine", "points": [[x, y + 1] for x, y in POINTS]})
    assert your_turn.up_to_date(own, moved, PAGE).step == 0
    assert your_turn.up_to_date(own, DRAWN, (2, *PAGE[1:])).settings.bits == 2


def test_points_of_a_visitor_are_not_kept(own: Progress) -> None:
    before = own.step
    *_, first = own.advance(until=before + 20)
    *_, second = own.advance(until=before + 20)
    assert not second.replayed
    assert first.record == second.record
    assert own.settings not in recordings._kept


@pytest.mark.parametrize("text", ["", None, "{", "[]", "[1,2]", "[[1]]", '[["a","b"]]', "[[1,2,3]]", "[[0,NaN],[1,2]]"])
def test_what_are_no_points_gets_a_sentence(text: Any) -> None:
    *_, last = your_turn.train(visitor("odd"), text, None, *PAGE)
    problem = json.loads(last[0])["problem"]
    assert "expected" in problem
    assert last[1] is None


def test_a_file_is_read(own: Progress) -> None:
    outputs = your_turn.read_points(visitor("bringing"), own, upload("x;y\n0;1,5\n1;2\n2;3\n3;4\n"))
    frame = json.loads(outputs[0])
    assert frame["points"] == [[0, 1.5], [1, 2], [2, 3], [3, 4]]
    assert frame["words"] == "4 points read. Press Train."
    assert outputs[1] is None


@pytest.mark.parametrize(
    ("sent", "sentence"),
    [
        (upload("0,one\n"), "mine.csv, line 1: y='one' is not a number"),
        (upload(b"\0\1\2", "cat.png"), "cat.png is binary"),
        (upload("0,1\n", "n" * 500), "1 point; expected from 4 to 2,000"),
        (upload(b"1" * 2_000_000), "mine.csv is too large; expected at most 1,000,000 bytes"),
        (upload(b"1" * 1_000_001), "mine.csv has 1,000,001 bytes; expected at most 1,000,000"),
        (event({"name": "a.csv", "data": "no base64!"}), "a.csv did not arrive whole"),
        (event({"name": 7}), "the browser sent no file"),
        (event(None), "the browser sent no file"),
    ],
)
def test_a_file_of_the_wrong_form_gets_a_sentence_and_loses_nothing(
    own: Progress, sent: gr.EventData, sentence: str
) -> None:
    outputs = your_turn.read_points(visitor("bringing"), own, sent)
    problem = json.loads(outputs[0])["problem"]
    assert sentence in problem
    assert len(problem) < 250
    assert outputs[1] is own


def test_a_file_ends_the_run_that_is_at_work() -> None:
    request = visitor("interrupting")
    frames = your_turn.train(request, DRAWN, None, *PAGE)
    next(frames)
    answers: list[Any] = []
    sent = upload("0,1\n1,2\n2,3\n3,5\n")
    asking = threading.Thread(target=lambda: answers.append(your_turn.read_points(request, None, sent)))
    asking.start()
    *_, last = frames
    asking.join(5)
    assert answers == [unchanged(2)]
    assert json.loads(last[0])["points"] == [[0, 1], [1, 2], [2, 3], [3, 5]]
    assert last[1] is None


def test_the_exported_file_answers_in_the_units_of_the_points(
    own: Progress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for outputs in your_turn.export_file(DRAWN, own, *PAGE):  # the folder is there until the last
        last = outputs
        if files := list(tmp_path.glob("qat-*/*.onnx")):
            session = onnxruntime.InferenceSession(files[0])
            xs = np.array([[x] for x, _ in POINTS], np.float32)
            (answers,) = session.run(None, {session.get_inputs()[0].name: xs})
            assert files[0].name == "mine-of-May_int4_per_channel_step50.onnx"
    assert not list(tmp_path.glob("qat-*"))
    experiment = Experiment.restore(own.snapshot, "cpu")
    expected = experiment.models["qat"](experiment.task.x).detach().numpy()
    assert np.abs(answers - expected).max() < 1e-4 * np.abs(expected).max()
    words = json.loads(last[0])["words"]
    assert "At all 4 optimization levels onnxruntime answers within" in words
    assert last[-1].interactive


def test_only_what_is_on_the_page_is_exported(own: Progress) -> None:
    for points, progress, settings in (
        (DRAWN, None, PAGE),
        (DRAWN, own, (2, *PAGE[1:])),
        ('{"name": "", "points": [[0,0],[1,1],[2,2],[3,3]]}', own, PAGE),
    ):
        *_, outputs = your_turn.export_file(points, progress, *settings)
        assert "press Train first" in json.loads(outputs[0])["problem"]
        assert outputs[-1] == gr.skip()


def test_other_settings_put_the_training_away(own: Progress) -> None:
    assert your_turn.follow_settings(visitor("same"), DRAWN, own, *PAGE) == unchanged(2)
    assert your_turn.follow_settings(visitor("other"), DRAWN, own, 8, *PAGE[1:])[1] is None
    bad = your_turn.follow_settings(visitor("bad"), DRAWN, own, 4, "per_tensor", 0.1, -1)
    assert json.loads(bad[0])["problem"].startswith("seed=-1; expected")


# --- your own module ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        Settings(),
        Settings(bits=2, granularity="per_channel", scale="learned", width=16),
        Settings(bits=8, scale="mse", seed=3, learning_rate=1e-3, width=32),
    ],
)
def test_the_listing_runs_and_exports_what_it_says(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(module_source(settings), names)
    assert names["config"] == settings.config
    assert names["loss"].item() < 0.5
    assert f"W{settings.bits:g}" in capsys.readouterr().out
    codes = [row for row in audit(tmp_path / "yours.onnx").rows if f"INT{settings.bits:g}" in row.dtype]
    assert len(codes) >= 3


def test_settings_that_the_page_does_not_offer_leave_the_listing() -> None:
    assert "QuantSpec" in json.loads(module_frame(*PAGE))["code"]
    assert module_frame(4, "per_tensor", 0.1, -1) == gr.skip()


# --- the questions --------------------------------------------------------------------------------


def test_every_question_has_one_right_answer_and_a_reason_for_each() -> None:
    questions = json.loads((your_turn.HERE / "questions.json").read_text())
    assert len(questions) == 6
    places = []
    for question in questions:
        right = [i for i, option in enumerate(question["options"]) if option.get("right")]
        assert len(right) == 1
        assert all(len(option["why"]) > 30 for option in question["options"])
        places += right
    assert set(places) == {0, 1, 2}
