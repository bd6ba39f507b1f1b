"""Chapter "sensitive": the examination, its mixes as code, and healing; without a browser."""

import html
import json
import re
import threading
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
import torch

from app.chapters.sensitive import chapter as sensitive
from app.chapters.sensitive import examination as cases
from app.chapters.sensitive.examination import METRIC, WIDTHS, Examination, Healing
from app.handlers import pause, unchanged
from app.lab.data import Digits
from app.lab.fit import Experiment, Settings
from app.lab.solo import Solo
from app.runs.progress import Progress
from app.runs.snapshots import snapshots
from qat_core import QATConfig, QuantSpec, frontier, prepare, sensitivity

PAGE = (4, "per_tensor", 0.1, 0)  # bits, granularity, noise, seed
SHORT = Settings(steps=40)


def visitor(name: str) -> gr.Request:
    return SimpleNamespace(session_hash=name)  # type: ignore[return-value]


def float_network(exam: Examination) -> Solo:
    """The one that is examined."""
    *_, (_, solo) = exam.training()
    return solo


@pytest.fixture(scope="module")
def progress() -> Progress:
    *_, trained = Progress.start(Settings()).advance(until=100)
    return trained


@pytest.fixture(scope="module")
def exam(progress: Progress) -> Examination:
    *_, last = sensitive.scan_layers(visitor("scanning"), "", None, None, progress, "sine", *PAGE)
    return last[1]


# --- one network alone ----------------------------------------------------------------------------


def test_alone_in_float_it_becomes_the_fp32_network_of_the_experiment() -> None:
    solo, experiment = Solo(SHORT), Experiment(SHORT, "cpu")
    list(solo.run(every=40)), list(experiment.run())
    assert solo.step == 40
    for name, value in experiment.models["fp32"].state_dict().items():
        assert torch.equal(solo.model.state_dict()[name], value)


@pytest.mark.parametrize("config", [None, QATConfig(QuantSpec(bits=3))])
def test_a_pause_changes_nothing(config: QATConfig | None) -> None:
    whole, first = (Solo(SHORT, steps=20, config=config) for _ in range(2))
    list(whole.run(every=5))
    run = first.run(every=5)
    next(run)
    second = Solo.restore(SHORT, first.snapshot(), config)
    assert list(second.run(every=5)) == [10, 15, 20]
    for name, value in whole.model.state_dict().items():
        assert torch.equal(second.model.state_dict()[name], value)


# --- the examination ------------------------------------------------------------------------------


def test_the_examination_is_that_of_the_library(exam: Examination, progress: Progress) -> None:
    experiment = Experiment.restore(progress.snapshot, "cpu")
    model, task = experiment.models["fp32"], experiment.task

    def error(candidate: torch.nn.Module) -> float:
        return task.measure(candidate)[0]["mse_clean"]

    rows = sensitivity(model, error, QATConfig(QuantSpec(granularity="per_tensor")))
    assert list(exam.rows) == rows
    assert list(exam.mixes) == frontier(rows)
    assert [m["mse_clean"] for m in exam.measured] == [error(prepare(model, mix.config(rows))) for mix in exam.mixes]
    same = [error(prepare(model, QATConfig(QuantSpec(bits=b, granularity="per_tensor")))) for b in WIDTHS]
    assert [m["mse_clean"] for m in exam.uniform] == same
    assert exam.step == 100


def test_a_network_that_is_not_trained_yet_is_trained_once_for_all() -> None:
    mine = replace(SHORT, seed=31)  # of no other test
    stages = list(Examination(mine).advance())
    assert [stage.step for stage in stages if not stage.is_trained] == [25]
    assert stages[-1].finished
    again = list(Examination(replace(mine, bits=2, granularity="per_channel")).advance())
    assert again[0].is_trained
    assert again[-1].rows[0].baseline == stages[-1].rows[0].baseline


def test_a_network_that_somebody_has_trained_to_its_end_is_not_trained_again() -> None:
    alone = list(Examination(SHORT).advance())
    list(Progress.start(SHORT).advance())
    stages = list(Examination(SHORT).advance())
    assert all(stage.is_trained for stage in stages)
    assert (stages[-1].rows, stages[-1].measured) == (alone[-1].rows, alone[-1].measured)
    assert "scanned of the sine network after 40 steps" in json.loads(sensitive.frame(stages[0]))["words"]


@pytest.mark.parametrize("dropped", [False, True])
@pytest.mark.parametrize("stages", [1, 3, 6])
def test_what_was_interrupted_goes_on_to_the_same_end(stages: int, dropped: bool) -> None:
    snapshots.forget()
    *_, whole = Examination(SHORT).advance()
    snapshots.forget()
    run = Examination(SHORT).advance()
    for _ in range(stages):
        interrupted = next(run)
    run.close()
    if dropped:
        snapshots.forget()
    *_, end = interrupted.advance()
    assert (end.rows, end.mixes, end.measured, end.uniform) == (whole.rows, whole.mixes, whole.measured, whole.uniform)


def test_the_digits_are_examined_by_their_training_loss() -> None:
    settings = Settings.of("digits", steps=23, granularity="per_channel")
    *_, done = Examination(settings).advance()
    assert [row.name for row in done.rows] == ["0", "2", "5", "8"]
    assert METRIC["digits"] == "loss_train"
    assert all(0 <= metrics["accuracy"] <= 1 for metrics in done.measured)
    assert done.rows[0].baseline == float_network(done).measure()["loss_train"]


def test_the_images_shown_are_those_that_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(cases.HEAL_STEPS, "digits", 3)
    settings = Settings.of("digits", steps=23, granularity="per_channel")
    done = next(stage for stage in Examination(settings).advance() if stage.mixes)
    *_, healing = Healing.of_mix(done, done.mixes[-1]).advance()
    frame = json.loads(sensitive.frame(done, healing))
    data = Digits.load()
    assert [shown["digit"] for shown in frame["digits"]] == data.test_y[:24].tolist()
    inks = [[(ord(letter) - ord("a")) / 16 for letter in shown["pixels"]] for shown in frame["digits"]]
    assert torch.equal(torch.tensor(inks), data.test_x[:24].flatten(1))
    network = healing.network().eval()
    assert frame["healing"]["answers"] == network(data.test_x[:24]).argmax(1).tolist()


def test_scanning_again_after_more_training_looks_at_the_new_weights(exam: Examination, progress: Progress) -> None:
    *_, later = progress.advance(until=101)
    *_, outputs = sensitive.scan_layers(visitor("again"), "", exam, None, later, "sine", *PAGE)
    assert outputs[1].step == 101
    assert outputs[1].rows != exam.rows


# --- the frame ------------------------------------------------------------------------------------


def test_a_frame_is_strict_json_and_small(exam: Examination) -> None:
    text = sensitive.frame(exam)
    frame = json.loads(text, parse_constant=pytest.fail)
    assert len(text) < 12_000
    assert [layer["name"] for layer in frame["layers"]] == ["0", "2", "4"]
    assert [layer["about"] for layer in frame["layers"]] == ["Linear 1 → 64", "Linear 64 → 64", "Linear 64 → 1"]
    assert frame["words"] == f"All 3 layers of the sine network scanned, {len(exam.mixes)} mixes measured."


def test_before_the_scan_the_layers_are_there_but_nothing_is_measured() -> None:
    frame = json.loads(sensitive.frame(Examination(Settings.of("digits"))))
    assert [layer["metric"] for layer in frame["layers"]] == [None] * 4
    assert (frame["mixes"], frame["baseline"]) == ([], None)
    assert frame["layers"][1]["about"] == "Conv2d 16 → 32, 3 by 3"


@pytest.mark.parametrize(("granularity", "scale"), [("per_tensor", "minmax"), ("per_channel", "learned")])
def test_the_code_on_screen_builds_the_mix_on_screen(granularity: str, scale: str) -> None:
    *_, done = Examination(Settings(steps=2, granularity=granularity, scale=scale)).advance()
    code = json.loads(sensitive.frame(done))["code"]
    for mix in done.mixes:
        lines = [line[WIDTHS.index(bits)] for line, bits in zip(code["lines"], mix.bits, strict=True)]
        source = html.unescape(re.sub(r"<[^>]+>", "", "\n".join([code["head"], *lines, code["tail"]])))
        names: dict[str, Any] = {"model": Solo(done.settings).model}
        exec(source, names)
        assert names["config"] == mix.config(done.rows)
        widths = [layer.weight_quantizer.spec.bits for layer in names["model"][::2]]
        assert tuple(widths) == mix.bits


# --- healing --------------------------------------------------------------------------------------


def test_healing_starts_crushed_and_recovers(exam: Examination, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(cases.HEAL_STEPS, "sine", 100)
    for choice in ({"heal": "worst", "bits": 4, "mix": 0}, {"heal": "mix", "bits": 4, "mix": 0}):
        *_, outputs = sensitive.heal_network(visitor("healing"), json.dumps(choice), exam, None, None)  # type: ignore[arg-type]
        healing = outputs[2]
        assert healing.finished
        assert json.loads(outputs[0])["words"].startswith("Healed ")
        errors = [metrics["mse_clean"] for _, metrics in healing.history]
        worst = max(exam.rows, key=lambda row: row.damage)
        crushed = worst.metric if choice["heal"] == "worst" else exam.measured[0]["mse_clean"]
        assert errors[0] == crushed
        assert errors[-1] < errors[0]
        shown = json.loads(outputs[0])["healing"]
        assert shown["layer"] == (worst.name if choice["heal"] == "worst" else None)
        assert [row[0] for row in shown["history"]] == [0, 20, 40, 60, 80, 100]


def test_only_the_fragile_layer_is_rounded_while_it_heals(exam: Examination) -> None:
    healing = Healing.of_worst(exam, 2)
    worst = max(exam.rows, key=lambda row: row.damage_at(2))
    kinds = {name: type(module).__name__ for name, module in healing.network().named_children()}
    assert [name for name, kind in kinds.items() if kind == "QuantLinear"] == [worst.name]


@pytest.mark.parametrize("dropped", [False, True])
def test_pause_keeps_what_is_healed_and_the_next_run_goes_on(
    exam: Examination, dropped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(cases.HEAL_STEPS, "sine", 60)
    choice = json.dumps({"heal": "worst", "bits": 4, "mix": 0})
    request = visitor("pausing")
    with monkeypatch.context() as slow:
        slow.setattr(sensitive, "SECONDS_A_FRAME", 60)  # however late the pause comes, the run has not ended
        frames = sensitive.heal_network(request, choice, exam, None, None)  # type: ignore[arg-type]
        next(frames), next(frames)
    asking = threading.Thread(target=pause, args=(request,))
    asking.start()
    *_, last = frames
    asking.join(5)
    paused = last[2]
    assert 0 < paused.step < 60
    assert not json.loads(last[0])["running"]
    if dropped:
        snapshots.forget()
    *_, last = sensitive.heal_network(request, choice, exam, paused, None)  # type: ignore[arg-type]
    *_, at_once = sensitive.heal_network(request, choice, exam, None, None)  # type: ignore[arg-type]
    assert last[2].history == at_once[2].history


@pytest.mark.parametrize(
    "choice",
    [
        "",
        "nonsense",
        None,
        7,
        "[]",
        "{}",
        '{"heal": "all"}',
        '{"heal": "mix", "mix": 999}',
        '{"heal": "mix", "mix": -1}',
    ]
    + ['{"heal": "mix", "mix": "0"}', '{"heal": "worst", "bits": 5}', '{"heal": "worst", "bits": null}', "x" * 5000],
)
def test_a_choice_that_is_none_gets_a_sentence(exam: Examination, choice: Any) -> None:
    *_, outputs = sensitive.heal_network(visitor("odd"), choice, exam, None, None)  # type: ignore[arg-type]
    problem = json.loads(outputs[0])["problem"]
    assert problem.startswith("to heal: ")
    assert "expected a width of (2, 3, 4, 8) or one of" in problem
    assert len(problem) < 200


def test_healing_before_scanning_gets_a_sentence() -> None:
    *_, outputs = sensitive.heal_network(visitor("early"), "", None, None, None)  # type: ignore[arg-type]
    assert json.loads(outputs[0])["problem"] == "Nothing to heal yet: press Scan first."


# --- settings and runs ----------------------------------------------------------------------------


def test_other_settings_put_the_examination_away(exam: Examination, progress: Progress) -> None:
    kept = sensitive.follow_settings(visitor("same"), "", exam, None, progress, "sine", *PAGE)
    assert kept == unchanged(3)
    outputs = sensitive.follow_settings(visitor("other"), "", exam, None, progress, "digits", *PAGE)
    assert outputs[1].settings.task == "digits"
    assert outputs[1].rows == ()
    bad = sensitive.follow_settings(visitor("bad"), "", exam, None, progress, "iris", *PAGE)
    assert "network='iris'; expected 'sine' or 'digits'" in json.loads(bad[0])["problem"]


def test_a_bad_setting_scans_nothing(progress: Progress) -> None:
    (outputs,) = sensitive.scan_layers(visitor("bad"), "", None, None, progress, "sine", 4, "per_tensor", 0.1, -1)
    assert json.loads(outputs[0])["problem"].startswith("seed=-1; expected")
