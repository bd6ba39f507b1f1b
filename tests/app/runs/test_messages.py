"""The frames that the browser is sent, what they say in words, and the diagnosis."""

import base64
import json
from dataclasses import replace

import pytest

from app.lab.fit import MODELS, Experiment, Settings
from app.runs.diagnosis import diagnose, number
from app.runs.messages import broken, fp32_in_words, frame, qat_in_words
from app.runs.progress import Progress


@pytest.fixture
def fresh() -> Progress:
    return Progress.start(Settings())


@pytest.fixture(scope="module")
def late() -> Progress:
    *_, progress = Progress.start(Settings()).advance(until=100)
    return progress


def test_a_frame_is_strict_json_and_a_lean_one_is_small(late: Progress) -> None:
    found = json.loads(frame(late), parse_constant=pytest.fail)
    assert found["step"] == 100
    assert [len(found["curves"][name]) for name in MODELS] == [128] * 3
    assert len(found["noisy"]) == 256
    assert base64.b64decode(found["map"]["cells"]) == late.record.weights.frequency
    (between,) = late.advance(until=101)
    lean = frame(between, running=True, whole=False)
    assert not {"noisy", "map", "floor"} & json.loads(lean).keys()
    assert len(lean) < 6_000


def test_frames_of_different_settings_have_different_keys(fresh: Progress) -> None:
    keys = {json.loads(frame(Progress.start(settings)))["key"] for settings in (Settings(), Settings(seed=1))}
    assert len(keys) == 2
    assert json.loads(frame(fresh))["key"] in keys


def test_the_floor_is_the_loss_of_the_sine_itself(fresh: Progress) -> None:
    data = Experiment(Settings(noise=0.3, seed=2), "cpu").task.data
    floor = json.loads(frame(Progress.start(Settings(noise=0.3, seed=2))))["floor"]
    assert floor == pytest.approx(((data.y - data.clean) ** 2).mean().item(), rel=1e-3)
    assert floor == pytest.approx(0.09, rel=0.3)


@pytest.mark.parametrize(
    ("ptq", "qat", "verdict"),
    [
        (1.2, 0.004, "gives 0.0040: 300 times less."),
        (0.012, 0.011, "gives 0.011: about the same."),
        (0.01, 0.02, "gives 0.020: for now 2.0 times more."),
        (1.6, 0.498, "gives 0.50: hardly better than to answer 0 for every x, which gives 0.50."),
    ],
)
def test_words_compare_training_with_rounding_afterwards(late: Progress, ptq: float, qat: float, verdict: str) -> None:
    metrics = {**late.record.metrics, "mse_clean": {"fp32": 0.001, "ptq": ptq, "qat": qat}}
    assert qat_in_words(replace(late.record, metrics=metrics), bits=4).endswith(verdict)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.5, "0.50"),
        (12.0, "12"),
        (99.7, "100"),
        (1234.5, "1,234"),
        (5e-5, "0.000050"),
        (2.8e-8, "2.8 · 10⁻⁸"),
    ],
)
def test_numbers_in_words_have_two_digits(value: float, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("loss", "noise", "words"),
    [
        (0.5, 0.1, "the true sine itself would score 0.0088"),
        (0.005, 0.1, "has begun to learn the noise"),
        (0.5, 0.0, "the loss has no floor above 0"),
    ],
)
def test_words_set_the_loss_beside_its_floor(late: Progress, loss: float, noise: float, words: str) -> None:
    metrics = {**late.record.metrics, "mse_train": {**late.record.mse_train, "fp32": loss}}
    assert words in fp32_in_words(replace(late.record, metrics=metrics), Settings(noise=noise))


# --- what is broken on purpose, and what is found ---------------------------------------------------


@pytest.mark.parametrize(
    ("preset", "finding"),
    [
        ("", "0% of the weights clipped"),
        ("fine", "The scale is too small"),
        ("coarse", "The scale is too large: 100% of the hidden layer's weights round to 0"),
        ("rate", "Training is dead, and not for its grid: 0% of the weights are clipped"),
    ],
)
def test_the_diagnosis_finds_what_was_broken(preset: str, finding: str) -> None:
    experiment = Experiment(broken(Settings(), preset), "cpu")
    (record,) = experiment.run(every=400, until=400 if preset == "rate" else 60)
    assert finding in diagnose(record, experiment.settings)


def test_the_diagnosis_knows_only_what_was_measured(late: Progress) -> None:
    weights = replace(late.record.weights, clipped=0.8, gradient_norm=0.2)
    words = diagnose(replace(late.record, weights=weights), late.settings)
    assert "80% of the weights lie beyond the outermost level" in words
    assert "none of them" not in words  # there is still a gradient
    restless = replace(late.record.weights, oscillating=0.05)
    assert diagnose(replace(late.record, weights=restless), late.settings).startswith("Restless: 5%")
