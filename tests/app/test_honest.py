"""After every action every setting is changed, and what is said then is compared with what is there."""

import json
import re
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from app import training
from app.chapters.export import chapter as export
from app.chapters.onnxruntime import chapter as onnxruntime
from app.chapters.ptq import chapter as ptq
from app.chapters.sensitive import chapter as sensitive
from app.chapters.your_turn import chapter as your_turn
from app.lab.fit import MODELS
from app.runs.diagnosis import number, shown, times
from app.runs.exported import Exported
from app.runs.messages import qat_in_words
from app.runs.progress import Progress
from app.settings import DEFAULTS, NAMES, parse_settings

PAGE = tuple({**DEFAULTS, "width": 8}[name] for name in NAMES)
OTHER = {
    "bits": 2,
    "granularity": "per_channel",
    "noise": 0.3,
    "seed": 5,
    "scale": "mse",
    "width": 12,
    "learning_rate": 0.02,
}
DRAWN = json.dumps({"name": "mine", "points": [[n, n % 3] for n in range(8)]})
FIGURE = r"(\d[\d,.]*\d|\d)"


def visitor() -> gr.Request:
    return SimpleNamespace(session_hash="honest")  # type: ignore[return-value]


def changed(name: str) -> tuple[Any, ...]:
    return tuple(OTHER[name] if name == each else value for each, value in zip(NAMES, PAGE, strict=True))


@pytest.fixture(scope="module")
def progress() -> Progress:
    *_, now = Progress.start(parse_settings(*PAGE)).advance(until=20)
    return now


@pytest.fixture(scope="module")
def exported(progress: Progress) -> Exported:
    *_, (_, made, *_) = export.export_file(None, progress, *PAGE)
    return made  # type: ignore[no-any-return]


Action = Callable[[Progress], Progress]
ACTIONS: dict[str, Action] = {
    "start": lambda now: Progress.start(now.settings),
    "step": lambda now: training.train_one_step(now, None, "", *PAGE)[1],
    "run": lambda now: _last(training.train(visitor(), now, None, "", *PAGE, seconds=0.0), 4)[1],
}


def _last(frames: Iterator[Any], after: int) -> Any:
    for _, frame in zip(range(after), frames, strict=False):
        last = frame
    frames.close()  # type: ignore[attr-defined]
    return last


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("name", OTHER)
def test_what_is_said_after_a_change_is_of_the_network_that_is_there(
    progress: Progress, exported: Exported, action: str, name: str
) -> None:
    now = ACTIONS[action](progress)
    frame, after, _, preset = training.follow_settings(visitor(), now, *changed(name))
    told = json.loads(frame)
    assert after.settings == parse_settings(*changed(name)) != now.settings
    assert (told["step"], told["preset"], preset, told["running"], told["problem"]) == (0, "", "", False, "")
    assert told["label"] == after.label != now.label
    for words in told["words"].values():
        assert words.startswith("Nothing is learned yet")
    assert told["diagnosis"].startswith("No step has been taken yet")
    # what was made before the change says of what it is
    assert exported.label != after.label
    assert "the page has moved on" in exported.moved_on(after)
    assert exported.label in json.loads(onnxruntime.show_file(exported)[1])["words"]
    # and what is asked for now is of the network of now
    rounded = json.loads(ptq.crush_network(now, *changed(name)))
    assert (rounded["label"], rounded["step"]) == (after.label, 0)
    exam = json.loads(sensitive.follow_settings(visitor(), "", None, None, now, "sine", *changed(name))[0])
    assert exam["words"].startswith("Not scanned yet")


@pytest.mark.parametrize("name", [name for name in OTHER if name in your_turn.USES])
def test_your_own_curve_is_put_away_with_its_settings(name: str) -> None:
    *_, own = Progress.start(your_turn.settings_of(your_turn.Drawing.parse(DRAWN).points, PAGE)).advance(until=10)
    before = json.loads(your_turn.frame(own))
    view, state = your_turn.follow_settings(visitor(), DRAWN, own, *changed(name))
    told = json.loads(view)
    assert state is None
    assert (told["step"], told["curves"], told["error"], told["file"]) == (0, {}, {}, "")
    assert told["of"] != before["of"]
    *_, (refused, _, download) = your_turn.export_file(DRAWN, state, *changed(name))
    assert "press Train first" in json.loads(refused)["problem"]
    assert download == gr.skip()


def test_every_ratio_is_that_of_the_figures_beside_it() -> None:
    for big, small in ((1.233, 0.004093), (52.4, 4.34), (0.01449, 0.001951), (250.4, 99.6), (3.04e-8, 1.96e-8)):
        said = times(big, small)
        assert number(shown(big)) == number(big)
        assert said == number(shown(big) / shown(small))
    errors = {"fp32": 0.001, "ptq": 0.014949, "qat": 0.00195}
    record = SimpleNamespace(step=10, mse_clean=errors)
    found = re.search(f"gives an error of {FIGURE}.*gives {FIGURE}: {FIGURE} times less", qat_in_words(record, 8))
    assert found
    ptq_error, qat_error, ratio = map(float, found.groups())
    assert ratio == pytest.approx(ptq_error / qat_error, rel=0.05)
    assert set(errors) == set(MODELS)
