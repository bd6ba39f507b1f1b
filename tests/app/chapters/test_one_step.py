"""The chapter's handlers, what they send, and the source they show."""

import base64
import inspect
import json
import re
from html import unescape
from types import SimpleNamespace
from typing import Any

import gradio as gr
import numpy as np
import pytest
import torch

from app.chapters.one_step import chapter as one_step
from app.chapters.one_step.chapter import frame, look, take_steps
from app.chapters.one_step.numbers import Choice, cell_of, picks_of
from app.chapters.one_step.sources import sources, torch_adam
from app.components.code import excerpt
from app.lab.fit import Experiment, Settings, TrainingDiverged
from app.lab.trace import trace_step, traceable
from app.runs.progress import Progress
from app.runs.run import running
from app.settings import DEFAULTS, NAMES
from qat_core.affine import round_to_codes
from qat_core.ste import ste_round

ON_PAGE = tuple(DEFAULTS[name] for name in NAMES)
LEARNED = tuple({**DEFAULTS, "scale": "learned"}[name] for name in NAMES)


def event(**data: Any) -> gr.EventData:
    return gr.EventData(None, data)


def visitor(name: str) -> gr.Request:
    return SimpleNamespace(session_hash=name)  # type: ignore[return-value]


@pytest.fixture(scope="module")
def fresh() -> Progress:
    return Progress.start(Settings())


def test_the_numbers_are_those_of_the_trace(fresh: Progress) -> None:
    shown = json.loads(frame(fresh, Choice("2", 3, 5)), parse_constant=pytest.fail)
    trace = trace_step(Experiment.restore(fresh.snapshot), "2")
    n = {name: np.float32(value) for name, value in shown["numbers"].items()}
    assert n["w"] == trace.weight.before[3, 5]
    assert n["scaled"] == trace.scaled[3, 5]
    assert n["quantized"] == trace.quantized[3, 5]
    assert n["grad_quantized"] == trace.grad_quantized[3, 5]
    assert n["m"] == trace.weight.exp_avg[3, 5]
    assert n["w_after"] == trace.weight.after[3, 5]
    assert n["code_after"] == trace.codes_after[3, 5]
    assert n["s"] == n["w_max"] / np.float32(7)
    assert n["grad_share"] + n["grad_others"] == pytest.approx(n["grad_quantized"], rel=1e-4)
    assert n["product"] + n["rest"] == pytest.approx(n["y"], rel=1e-4)
    assert (codes_of(shown) == trace.codes.numpy()).all()
    flips = np.unpackbits(np.frombuffer(base64.b64decode(shown["flips"]), np.uint8)).reshape(64, 64)
    assert (flips == trace.flips.numpy()).all()
    assert shown["flipped"] == int(trace.flips.sum())


def codes_of(shown: dict[str, Any]) -> np.ndarray:
    """Read as ONNX packs them: two's complement, up to four bits the low nibble first."""
    data = base64.b64decode(shown["codes"])
    values = [n for byte in data for n in (byte & 15, byte >> 4)] if shown["bits"] <= 4 else list(data)
    top = 16 if shown["bits"] <= 4 else 256
    signed = [n - top if n >= top // 2 else n for n in values]
    return np.array(signed[: shown["rows"] * shown["cols"]]).reshape(shown["rows"], shown["cols"])


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_codes_of_every_width_arrive(bits: int) -> None:
    progress = Progress.start(Settings(bits=bits, width=5))
    trace = trace_step(Experiment.restore(progress.snapshot), "2")
    assert trace.codes.shape == (5, 5)  # an odd number of codes
    assert (codes_of(json.loads(frame(progress, Choice("2")))) == trace.codes.numpy()).all()


def test_a_matrix_that_the_browser_has_is_not_sent_again(fresh: Progress) -> None:
    request = visitor("again")
    cell = {"layer": "2", "row": 1, "col": 2}
    whole = json.loads(look(request, event(**cell, asked=7), fresh, *ON_PAGE)[0])
    lean = json.loads(look(request, event(**cell, asked=8, has=whole["matrix"]), fresh, *ON_PAGE)[0])
    assert (whole["asked"], lean["asked"]) == (7, 8)
    assert whole.keys() - lean.keys() == {"codes", "flips"}
    for other in (event(**{**cell, "layer": "0", "row": 1, "col": 0}, has=whole["matrix"]), event(**cell, has=None)):
        assert "codes" in json.loads(look(request, other, fresh, *ON_PAGE)[0])
    stepped = json.loads(take_steps(request, event(**cell, steps=1, has=whole["matrix"]), fresh, *ON_PAGE)[0])
    assert "codes" in stepped


def test_the_gradients_parts_add_up_to_it(fresh: Progress) -> None:
    trace = trace_step(Experiment.restore(fresh.snapshot), "2")
    at = tuple(cell_of(picks_of(trace)["gradient"], trace))
    parts = trace.grad_output[:, at[0]] * trace.input[:, at[1]]
    assert parts.sum().item() == pytest.approx(trace.grad_quantized[at].item(), rel=1e-4)


def test_a_frame_is_small(fresh: Progress) -> None:
    assert len(frame(fresh, Choice())) < 16_000
    assert len(frame(Progress.start(Settings(width=256)), Choice())) < 64_000
    assert len(json.dumps(sources())) < 40_000


@pytest.mark.parametrize("scale", ["minmax", "mse", "learned"])
@pytest.mark.parametrize("layer", ["0", "2", "4"])
def test_the_picks_are_what_their_names_say(scale: str, layer: str) -> None:
    progress = next(Progress.start(Settings(scale=scale)).advance(until=25))
    trace = trace_step(Experiment.restore(progress.snapshot), layer)
    picks = json.loads(frame(progress, Choice(layer)))["picks"]
    gradient, flip, clamped = (None if cell is None else tuple(cell) for cell in picks.values())
    assert trace.weight.grad[gradient].abs() == trace.weight.grad.abs().max()
    assert trace.flips[flip] == trace.flips.any()
    if scale == "minmax":
        assert clamped is None
    elif clamped is not None:
        assert trace.clamped[clamped]
        excess = (trace.unclamped - trace.codes).abs()
        assert excess[clamped] == excess.max()


def test_without_a_choice_it_is_the_largest_gradient(fresh: Progress) -> None:
    shown = json.loads(frame(fresh, Choice()))
    assert [shown["row"], shown["col"]] == shown["picks"]["gradient"]


def test_the_scale_of_a_channel_is_measured_in_its_row() -> None:
    progress = Progress.start(Settings(granularity="per_channel"))
    numbers = json.loads(frame(progress, Choice("2", 9, 0)))["numbers"]
    weight = traceable(Experiment.restore(progress.snapshot).models["qat"])["2"].weight[9]
    assert (numbers["w_max_row"], numbers["w_max_col"]) == (9, int(weight.abs().argmax()))
    assert np.float32(numbers["w_max"]) == weight.abs().max().item()


def test_looking_changes_nothing(fresh: Progress) -> None:
    first, kept = look(visitor("looking"), event(layer="2", row=None, col=None), fresh, *ON_PAGE)
    second, _ = look(visitor("looking"), event(layer="2", row=None, col=None), fresh, *ON_PAGE)
    assert first == second
    assert kept == gr.skip()


def test_while_a_run_ends_the_page_is_told_to_ask_again(fresh: Progress) -> None:
    with running("leaving a run"):
        shown, kept = look(visitor("leaving a run"), event(layer="2", row=None, col=None, asked=3), fresh, *ON_PAGE)
    assert json.loads(shown) == {"busy": True, "asked": 3}
    assert kept == gr.skip()


@pytest.mark.parametrize("steps", [1, 25, 100])
def test_steps_move_the_shared_training_on_as_anywhere_else(fresh: Progress, steps: int) -> None:
    shown, feed, progress = take_steps(
        visitor("stepping"), event(layer="2", row=1, col=2, steps=steps), fresh, *ON_PAGE
    )
    *_, expected = fresh.advance(until=steps)
    assert progress.step == json.loads(shown)["step"] == json.loads(feed)["step"] == steps
    for name, model in expected.snapshot["models"].items():
        for key, value in model.items():
            assert torch.equal(value, progress.snapshot["models"][name][key])
    assert fresh.step == 0


def test_what_is_shown_is_what_the_step_then_does(fresh: Progress) -> None:
    choice = {"layer": "2", "row": 1, "col": 2}
    before = json.loads(look(visitor("looking"), event(**choice), fresh, *ON_PAGE)[0])["numbers"]
    after = json.loads(take_steps(visitor("promise"), event(**choice, steps=1), fresh, *ON_PAGE)[0])["numbers"]
    assert (before["w_after"], before["s_after"], before["code_after"]) == (after["w"], after["s"], after["code"])
    assert (before["m"], before["u"]) == (after["m_before"], after["u_before"])


def test_at_the_end_one_more_step_moves_nothing() -> None:
    settings = Settings(steps=3)
    *_, ended = Progress.start(settings).advance()
    numbers = json.loads(frame(ended, Choice()))["numbers"]
    assert numbers["lr"] == numbers["change"] == 0
    assert numbers["w_after"] == numbers["w"]


def test_new_settings_are_honoured(fresh: Progress) -> None:
    shown, progress = look(visitor("looking"), event(layer="2", row=None, col=None), fresh, *LEARNED)
    assert json.loads(shown)["rule"] == progress.settings.scale == "learned"
    assert "grad_s" in json.loads(shown)["numbers"]


def test_a_run_at_work_elsewhere_is_left_alone(fresh: Progress) -> None:
    with running("busy"):
        shown, *_ = take_steps(visitor("busy"), event(layer="2", row=None, col=None, steps=1), fresh, *ON_PAGE)
    assert json.loads(shown)["problem"] == "Training is at work in another chapter. Press Pause there first."


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ({}, "{} is no choice of a weight; expected layer, row and col"),
        ({"layer": 2}, "is no choice of a weight"),
        ({"layer": "9", "row": None, "col": None}, "layer='9'; expected one of 0, 2, 4"),
        ({"layer": "2", "row": 64, "col": 0}, "row=64, col=0; layer '2' has 64 rows and 64 columns"),
        ({"layer": "2", "row": -1, "col": 0}, "row=-1, col=0; layer '2' has"),
        ({"layer": "2", "row": 1.5, "col": 0}, "row=1.5, col=0; expected two whole numbers"),
        ({"layer": "2", "row": 1, "col": None}, "row=1, col=None; expected two whole numbers"),
        ({"layer": "2", "row": True, "col": 0}, "expected two whole numbers"),
        ({"layer": "2", "row": "x" * 500, "col": 0}, "expected two whole numbers"),
    ],
)
def test_what_the_browser_sends_is_checked(fresh: Progress, data: dict[str, Any], sentence: str) -> None:
    shown, kept = look(visitor("looking"), event(**data), fresh, *ON_PAGE)
    assert sentence in json.loads(shown)["problem"]
    assert len(shown) < 200
    assert kept == gr.skip()


@pytest.mark.parametrize("steps", [0, 2, -1, 10**9, "1", None, True])
def test_only_the_steps_on_the_page_are_taken(fresh: Progress, steps: Any) -> None:
    shown, _, progress = take_steps(visitor("far"), event(layer="2", row=None, col=None, steps=steps), fresh, *ON_PAGE)
    assert "expected one of 1, 25, 100" in json.loads(shown)["problem"]
    assert progress is fresh


def test_divergence_gets_a_sentence(fresh: Progress, monkeypatch: pytest.MonkeyPatch) -> None:
    def diverge(self: Experiment) -> None:
        raise TrainingDiverged("training stopped at step 1: the QAT loss is nan")

    monkeypatch.setattr(Experiment, "_optimize", diverge)
    for shown, *_, progress in (
        look(visitor("looking"), event(layer="2", row=None, col=None), fresh, *ON_PAGE),
        take_steps(visitor("diverging"), event(layer="2", row=None, col=None, steps=1), fresh, *ON_PAGE),
    ):
        assert json.loads(shown)["problem"].startswith("training stopped at step 1")
        assert progress in (fresh, gr.skip())


# --- the source -----------------------------------------------------------------------------------


def text_of(line: str) -> str:
    return unescape(re.sub(r"<[^>]+>", "", line))


def test_an_excerpt_is_the_source_that_runs() -> None:
    found = excerpt(round_to_codes, "torch.div")
    source, first = inspect.getsourcelines(round_to_codes)
    assert (found["file"], found["name"]) == ("qat_core/affine.py", "round_to_codes")
    for number, html, _ in found["lines"]:
        assert source[number - first].strip() == text_of(html).strip()
    assert [text_of(html) for _, html, marked in found["lines"] if marked] == ["codes = torch.div(x, scale, out=out)"]


def test_every_stage_has_its_source_and_every_excerpt_a_marked_line() -> None:
    found = sources()
    stages = {name.split(".")[0] for name in found}
    module = (one_step.HERE / "stages.js").read_text()
    assert stages == set(re.findall(r'^ +key: "(\w+)"', module, re.MULTILINE))
    for item in found.values():
        assert any(marked for _, _, marked in item["lines"])
    assert "torch/optim/adam.py" in {item["file"] for item in found.values()}


def test_a_line_that_is_gone_is_named() -> None:
    with pytest.raises(LookupError, match=r"no line of ste_round contains 'x\.copy"):
        excerpt(ste_round, "x.copy()")


def test_another_torch_shows_the_line_that_calls_it() -> None:
    lines = torch_adam("a line of some other version")["lines"]
    assert [text_of(html).strip() for _, html, marked in lines if marked] == ["optimizer.step()"]


def test_every_number_that_the_texts_name_is_sent_or_follows(fresh: Progress) -> None:
    module = (one_step.HERE / "stages.js").read_text()
    stages, rest = module.split("const STAGES = {")[1].split("export function stagesOf")
    named = set(
        re.findall(r"(?<!\$)\{(\w+)\}", stages + rest.split("function flipped")[1].split("function sharing")[0])
    )
    sent = json.loads(frame(Progress.start(Settings(scale="learned")), Choice()))["numbers"].keys()
    derived = set(re.findall(r"^    (\w+):", rest.split("...n,")[1].split("};")[0], re.MULTILINE))
    assert named <= sent | derived
    origins = set(re.findall(r"^    (\w+):", rest.split("const origins = {")[1].split("};")[0], re.MULTILINE))
    assert named <= origins
