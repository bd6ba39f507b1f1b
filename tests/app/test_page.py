"""The page without a browser: its handlers, its state, its command line."""

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import onnx
import pytest
from gradio_client import Client

from app import ui
from app.__main__ import register_with_zero_gpu
from app.chapters import take_home, training
from app.lab.fit import MODELS, Experiment, Settings, TrainingDiverged
from app.progress import STEPS_A_FRAME, Progress
from app.running import running, stop
from app.turns import turn

ROOT = Path(__file__).resolve().parents[2]
DEFAULTS = (4, "per_tensor", 0.1, 0)  # bits, granularity, noise, seed: as on the page


def visitor(name: str) -> gr.Request:
    return SimpleNamespace(session_hash=name)  # type: ignore[return-value]


@pytest.fixture
def fresh() -> Progress:
    return Progress.start(Settings())


# --- training -------------------------------------------------------------------------------------


def test_a_frame_is_strict_json_and_small(fresh: Progress) -> None:
    *_, late = fresh.advance(until=100)
    text = training.frame(late)
    frame = json.loads(text, parse_constant=pytest.fail)
    assert frame["step"] == 100
    assert [len(frame["curves"][name]) for name in MODELS] == [128] * 3
    assert [row[0] for row in frame["history"]] == [0, 25, 50, 75, 100]
    assert len(text) < 12_000


def test_going_on_after_a_pause_changes_nothing(fresh: Progress) -> None:
    *_, at_once = fresh.advance(until=2 * STEPS_A_FRAME)
    *_, before = fresh.advance(until=STEPS_A_FRAME)
    *_, after = before.advance(until=2 * STEPS_A_FRAME)
    assert after.record.mse_train == at_once.record.mse_train
    assert after.record.curves == at_once.record.curves


def test_step_is_one_optimizer_step_and_leaves_the_state_it_was_given(fresh: Progress) -> None:
    shown, after, *_ = training.train_one_step(fresh, *DEFAULTS)
    assert (json.loads(shown)["step"], after.step, fresh.step) == (1, 1, 0)


def test_pause_ends_the_run_with_the_frame_that_is_kept(fresh: Progress) -> None:
    request = visitor("pausing")
    frames = training.train(request, fresh, *DEFAULTS)
    next(frames)
    asking = threading.Thread(target=training.pause_training, args=(request,))
    asking.start()
    *_, last = frames
    asking.join(5)
    assert not asking.is_alive()
    frame, kept = json.loads(last[0]), last[1]
    assert not frame["running"]
    assert frame["step"] == kept.step < kept.record.steps


@pytest.mark.parametrize(
    ("settings", "shown"),
    [(DEFAULTS, {"step": 0, "problem": ""}), ((4, "per_tensor", 0.1, -1), {"problem": "seed=-1; expected"})],
)
def test_a_run_shows_what_ends_it_as_its_last_frame(
    fresh: Progress, settings: tuple[Any, ...], shown: dict[str, Any]
) -> None:
    request = visitor("resetting")
    frames = training.train(request, fresh, *DEFAULTS)
    next(frames)
    answers: list[Any] = []
    asking = threading.Thread(target=lambda: answers.append(training.start_anew(request, fresh, *settings)))
    asking.start()
    *_, last = frames
    asking.join(5)
    assert answers == [training.unchanged()]
    frame = json.loads(last[0])
    assert frame["problem"].startswith(shown["problem"])
    assert not frame["running"]
    assert last[1].step == 0


def test_pause_does_not_wait_for_somebody_elses_turn(fresh: Progress) -> None:
    request = visitor("waiting")
    frames = training.train(request, fresh, *DEFAULTS)
    next(frames)
    with turn():
        asking = threading.Thread(target=training.pause_training, args=(request,))
        asking.start()
        *_, last = frames
    asking.join(5)
    assert last[1].step == 0


def test_a_run_that_was_left_is_forgotten(fresh: Progress) -> None:
    frames = training.train(visitor("leaving"), fresh, *DEFAULTS)
    next(frames)
    frames.close()
    stop("leaving")  # would wait if the run still counted as being at work


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


def test_run_honours_settings_that_the_state_has_not_seen(fresh: Progress) -> None:
    frames = training.train(visitor("eager"), fresh, 8, "per_channel", 0.2, 5)
    (_, at_once, *_), (_, later, *_) = next(frames), next(frames)
    frames.close()
    assert at_once.settings == later.settings == Settings(bits=8, granularity="per_channel", noise=0.2, seed=5)
    assert (at_once.step, later.step) == (0, STEPS_A_FRAME)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ((4, "per_tensor", 0.1, -1), "seed=-1; expected a whole number"),
        ((4, "per_tensor", 0.1, 1.5), "seed=1.5; expected a whole number"),
        ((4, "per_tensor", 0.1, None), "seed=None; expected a whole number"),
        ((5, "per_tensor", 0.1, 0), "bits=5; expected one of 2, 3, 4, 8"),
        ((4, "per_tensor", -3, 0), "noise=-3; expected a number"),
        ((4, "per_row", 0.1, 0), "granularity='per_row'"),
    ],
)
def test_a_bad_setting_gets_a_sentence_and_keeps_the_progress(
    fresh: Progress, settings: tuple[Any, ...], sentence: str
) -> None:
    for outputs in (
        training.train_one_step(fresh, *settings),
        training.start_anew(visitor("bad"), fresh, *settings),
        training.follow_settings(visitor("bad"), fresh, *settings),
        *training.train(visitor("bad"), fresh, *settings),
    ):
        assert sentence in json.loads(outputs[0])["problem"]
        assert outputs[1] is fresh


def test_at_the_end_only_reset_is_left(fresh: Progress) -> None:
    ended = replace(fresh, record=replace(fresh.record, step=fresh.record.steps))
    _, _, *buttons = training.page(ended)
    assert [button.interactive for button in buttons] == [False, False, False, True]


def test_divergence_gets_a_sentence(fresh: Progress, monkeypatch: pytest.MonkeyPatch) -> None:
    def diverge(self: Experiment) -> None:
        raise TrainingDiverged("training stopped at step 1: the QAT loss is nan")

    monkeypatch.setattr(Experiment, "_optimize", diverge)
    *_, outputs = training.train(visitor("diverging"), fresh, *DEFAULTS)
    assert json.loads(outputs[0])["problem"].startswith("training stopped at step 1")


def test_two_visitors_do_not_share_their_progress() -> None:
    page = ui.build()
    _, url, _ = page.launch(prevent_thread_lock=True, quiet=True, server_port=free_port())
    try:
        one, other = Client(url, verbose=False), Client(url, verbose=False)
        steps = [step_of(client) for client in (one, one, other, one)]
    finally:
        page.close(verbose=False)
    assert steps == [1, 2, 1, 3]


def step_of(client: Client) -> int:
    shown = client.predict(*DEFAULTS, api_name="/train_one_step")
    return int(json.loads(shown)["step"])


# --- taking it home -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exported() -> take_home.Exported:
    outputs = list(take_home.export_file(None, Progress.start(Settings()), *DEFAULTS))
    receipt = json.loads(outputs[-1][0])
    assert [level["ok"] for level in receipt["levels"]] == [True] * 4
    assert receipt["file_bytes"] < receipt["fp32_bytes"]
    assert receipt["file_bytes"] == len(outputs[-1][2].model)
    return outputs[-1][2]


def test_the_folder_of_the_file_is_gone_when_gradio_has_its_copy(
    fresh: Progress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for outputs in take_home.export_file(None, fresh, *DEFAULTS):
        folders = list(tmp_path.glob("qat-*/*.onnx"))
        assert len(folders) == (1 if outputs[2] else 0)
    assert not list(tmp_path.glob("qat-*"))


def test_two_exports_never_share_a_folder(fresh: Progress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    one, other = take_home.export_file(None, fresh, *DEFAULTS), take_home.export_file(None, fresh, *DEFAULTS)
    for _ in range(2):
        next(one), next(other)
    assert len({path.parent for path in tmp_path.glob("qat-*/*.onnx")}) == 2
    one.close(), other.close()


def test_export_honours_settings_that_the_state_has_not_seen(fresh: Progress) -> None:
    *_, outputs = take_home.export_file(None, fresh, 8, "per_channel", 0.1, 0)
    assert outputs[2].progress.settings == Settings(bits=8, granularity="per_channel")


def test_a_bad_setting_exports_nothing_and_keeps_the_last_file(exported: take_home.Exported, fresh: Progress) -> None:
    *_, outputs = take_home.export_file(exported, fresh, 4, "per_tensor", 0.1, -1)
    assert "Nothing was exported: seed=-1; expected" in json.loads(outputs[0])["words"]
    assert outputs[2] is exported


def test_an_x_is_answered_with_a_point(exported: take_home.Exported, fresh: Progress) -> None:
    onnx.checker.check_model(onnx.load_model_from_string(exported.model))
    answer = json.loads(take_home.ask_file(" 0.5 ", exported, fresh))
    assert answer["words"].startswith("For x = 0.5 the file answers")
    assert "moved on" not in answer["words"]
    assert answer["point"]["x"] == 0.5
    assert not answer["problem"]


def test_an_answer_says_when_training_has_moved_on(exported: take_home.Exported, fresh: Progress) -> None:
    *_, later = fresh.advance(until=1)
    words = json.loads(take_home.ask_file("0.5", exported, later))["words"]
    assert words.endswith("The file is of step 0; training has moved on to step 1.")
    other = Progress.start(Settings(bits=8))
    words = json.loads(take_home.ask_file("0.5", exported, other))["words"]
    assert "The file is of INT4 per tensor, seed 0, noise 0.1, step 0; the page has moved on to INT8" in words


@pytest.mark.parametrize("text", ["abc", "", "0,5", "nan", "inf", "1e39", "0.5 0.6"])
def test_what_is_not_a_number_is_named(exported: take_home.Exported, fresh: Progress, text: str) -> None:
    answer = json.loads(take_home.ask_file(text, exported, fresh))
    assert answer["problem"]
    assert f"x={text!r}" in answer["words"]
    assert "expected" in answer["words"]


def test_without_a_file_there_is_nothing_to_ask(fresh: Progress) -> None:
    assert "press Export first" in json.loads(take_home.ask_file("0.5", None, fresh))["words"]


# --- the command line -----------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def app(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GRADIO_SERVER_")}
    return subprocess.run(
        [sys.executable, "-m", "app", *arguments],
        cwd=ROOT,
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("port", ["abc", "0", "65536", "-1", "80.5", ""])
def test_a_wrong_port_gets_one_sentence(port: str) -> None:
    for answer in (app(f"--port={port}"), app(GRADIO_SERVER_PORT=port)):
        assert answer.returncode == 2
        assert answer.stderr.count("\n") == 1
        assert f"port={port!r}; expected a whole number from 1 to 65535" in answer.stderr


def test_a_busy_port_gets_one_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        answer = app("--port", str(port))
    assert answer.returncode == 2
    assert answer.stderr.count("\n") == 1
    assert f"cannot listen on 127.0.0.1, port {port}" in answer.stderr


def test_a_space_with_zero_gpu_finds_the_function_it_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    registered: list[Any] = []
    monkeypatch.setitem(sys.modules, "spaces", SimpleNamespace(GPU=registered.append))
    register_with_zero_gpu()
    assert len(registered) == 1
    monkeypatch.setitem(sys.modules, "spaces", None)  # as if it were not installed
    register_with_zero_gpu()


def test_help_names_the_flags() -> None:
    answer = app("--help")
    assert answer.returncode == 0
    assert "--host" in answer.stdout
    assert "--port" in answer.stdout
