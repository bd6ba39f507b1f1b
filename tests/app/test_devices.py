"""Where an experiment computes: on a "cuda" that is the CPU behind another name, and on one that is lent."""

import json
import pickle
import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
import torch
from torch import Tensor

from app import session, ui
from app.chapters import CHAPTERS
from app.lab import devices
from app.lab.__main__ import main
from app.lab.fit import Experiment, Settings
from app.lab.solo import Solo
from app.runs import lent
from app.runs.messages import frame
from app.runs.progress import STEPS_A_FRAME, Progress, recordings
from app.settings import CHOICES, DEFAULTS, parse_address, parse_settings
from app.training import choose

SHORT: dict[str, Any] = {"steps": 5 * STEPS_A_FRAME, "width": 8}
CUDA = torch.device("cpu", 0)  # computes as the CPU, and is told apart from it


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with a GPU, as far as anybody can see."""
    pretend(monkeypatch, "cuda", "cpu")


def pretend(monkeypatch: pytest.MonkeyPatch, *here: str) -> None:
    monkeypatch.setattr(devices, "here", lambda: here)
    monkeypatch.setattr(devices, "place", lambda name: CUDA if name == "cuda" else torch.device(name))
    monkeypatch.setattr(devices, "title", lambda name: {"cuda": "Model T"}.get(name, name))
    monkeypatch.setitem(CHOICES, "device", here)
    monkeypatch.setitem(DEFAULTS, "device", here[0])


# --- one rule ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("there", "best"),
    [(("cuda", "mps", "xpu"), "cuda"), (("xpu", "mps"), "mps"), (("xpu",), "xpu"), ((), "cpu")],
)
def test_the_best_device_is_cuda_then_mps_then_xpu_then_the_cpu(
    monkeypatch: pytest.MonkeyPatch, there: tuple[str, ...], best: str
) -> None:
    asked = {"cuda": torch.cuda, "mps": torch.backends.mps, "xpu": torch.xpu}
    for name, module in asked.items():
        monkeypatch.setattr(module, "is_available", lambda name=name: name in there)
    assert devices.check("auto") == Settings().device == best
    assert set(devices.here()) == {*there, "cpu"}


def test_a_device_that_is_not_there_gets_a_sentence_everywhere(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pretend(monkeypatch, "cpu")
    sentence = "device='cuda' is not there; this machine has cpu"
    with pytest.raises(ValueError, match=sentence):
        Settings(device="cuda")
    with pytest.raises(ValueError, match=sentence):
        Experiment(Settings(), "cuda")
    assert main(["--device", "cuda"]) == 2
    assert sentence in capsys.readouterr().err
    found = parse_address({"device": "cuda"}, ["fp32"])
    assert found.settings == {"device": "cpu"}
    assert found.problems == ("device='cuda'; expected one of cpu. It is cpu now.",)


@pytest.mark.usefixtures("gpu")
def test_every_place_computes_where_the_settings_say(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert Experiment(Settings()).device == Solo(Settings()).device == CUDA
    assert Experiment(Settings(device="cpu")).device == torch.device("cpu") != CUDA
    assert main(["--steps", "2", "--width", "4", "--json", "--out", str(tmp_path)]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["device"] == "cuda"
    assert "device" not in result["config"]


# --- on the page ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("gpu")
def test_the_page_offers_the_devices_and_its_address_names_the_one_chosen() -> None:
    with gr.Blocks():
        (choice,) = (s for s in session.build().settings if s.elem_id == "device")
    assert (choice.choices, choice.value) == ([("Model T", "cuda"), ("cpu", "cpu")], "cuda")
    catalogue = json.loads(ui.head().partition('id="catalogue">')[2].partition("</script>")[0])
    assert catalogue["defaults"]["device"] is None  # equal to no choice, so always written
    assert {c["key"] for c in catalogue["chapters"] if "device" in c["uses"]} == {
        c.key for c in CHAPTERS if "learning_rate" in c.uses or c.key == "one_step"
    }


def test_one_device_is_no_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, "cpu")
    catalogue = json.loads(ui.head().partition('id="catalogue">')[2].partition("</script>")[0])
    assert catalogue["defaults"]["device"] == "cpu"
    assert not any("device" in chapter["uses"] for chapter in catalogue["chapters"])


@pytest.mark.usefixtures("gpu")
def test_another_device_starts_anew() -> None:
    on_gpu = Progress.start(parse_settings())
    values = [DEFAULTS[name] for name in DEFAULTS if name != "device"]
    assert choose(on_gpu, None, "", (*values, "cuda")) is on_gpu
    assert choose(on_gpu, None, "", (*values, "cpu")).settings.device == "cpu"


@pytest.mark.usefixtures("gpu")
def test_devices_have_recordings_of_their_own_and_start_alike() -> None:
    runs = {name: list(Progress.start(Settings(**SHORT, device=name)).advance()) for name in ("cuda", "cpu")}
    assert not any(frame.replayed for frames in runs.values() for frame in frames)
    on_gpu, on_cpu = ([frame.record for frame in frames] for frames in runs.values())
    assert on_gpu == on_cpu
    assert [frames[-1].device for frames in runs.values()] == ["Model T", "cpu"]


def test_a_frame_says_where_it_was_trained_and_how_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, "cpu")
    start = Progress.start(Settings(**SHORT))
    shown = json.loads(frame(start))
    assert (shown["device"], shown["speed"]) == ("cpu", 0)
    assert json.loads(frame(next(start.advance())))["speed"] > 0


# --- a GPU that is lent -----------------------------------------------------------------------------


class Spaces:
    """The package of that name: what is lent runs elsewhere, so whatever goes there and back is pickled."""

    def __init__(self) -> None:
        self.slices: list[Any] = []
        self.refusal = ""

    def GPU(self, duration: float) -> Callable[..., Any]:
        assert duration >= lent.SECONDS_A_SLICE
        return lambda function: lambda *arguments: self.lend(function, *arguments)

    def lend(self, function: Callable[..., Iterator[Any]], *arguments: Any) -> Iterator[Any]:
        if self.refusal:
            raise RuntimeError(self.refusal)
        sent = pickle.dumps(arguments)
        self.slices.append(arguments)
        for answer in function(*pickle.loads(sent)):  # noqa: S301 (our own)
            yield pickle.loads(pickle.dumps(answer))  # noqa: S301


@pytest.fixture
def spaces(monkeypatch: pytest.MonkeyPatch) -> Spaces:
    """A machine that lends."""
    pretend(monkeypatch, "cpu", "cuda")
    package = Spaces()
    monkeypatch.setattr(devices, "lends", lambda: True)
    monkeypatch.setitem(sys.modules, "spaces", SimpleNamespace(GPU=package.GPU))
    monkeypatch.setattr(lent, "SECONDS_A_SLICE", 0.0)  # a frame a slice
    monkeypatch.setattr(lent, "train_slice", lent.register())
    return package


def test_a_gpu_that_is_lent_is_not_the_first_choice_and_needs_no_package_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SPACES_ZERO_GPU", "1")
    assert devices.here() == ("cpu", "cuda")
    assert devices.check("auto") == "cpu"
    monkeypatch.setitem(sys.modules, "spaces", None)  # as if it were not installed
    assert lent.register() is lent.train


def test_what_comes_back_from_a_slice_goes_on(spaces: Spaces) -> None:
    start = Progress.start(Settings(**SHORT, device="cuda"))
    assert spaces.slices == [], "step 0 is made here"
    frames = list(start.advance())
    assert len(spaces.slices) == len(frames) == 5
    assert [f.record for f in frames] == list(Experiment(Settings(**SHORT, device="cpu")).run(STEPS_A_FRAME))
    assert not any(isinstance(value, Tensor) for slice in spaces.slices for value in leaves(slice[0]))
    assert frames[-1].note(running=True) == ""
    again = list(start.advance())
    assert len(spaces.slices) == 5, "a recording costs nobody's quota"
    assert [f.record for f in again] == [f.record for f in frames]


def test_between_two_slices_a_run_can_be_stopped(spaces: Spaces) -> None:
    wanted = True
    frames = Progress.start(Settings(**SHORT, device="cuda")).advance(is_wanted=lambda: wanted)
    next(frames)
    wanted = False
    assert list(frames) == []
    assert len(spaces.slices) == 1


def test_where_none_is_lent_the_cpu_goes_on_and_says_so(spaces: Spaces) -> None:
    settings = Settings(**SHORT, device="cuda")
    frames = Progress.start(settings).advance()
    seen = [next(frames), next(frames)]
    spaces.refusal = "You have exceeded your GPU quota\n(60s requested vs. 0s left)"
    seen += frames
    steps = [f.step for f in seen]
    assert steps == [10, 20, 20, 30, 40, 50]
    assert [f.record for f in seen[3:]] == list(Experiment(Settings(**SHORT, device="cpu")).run(STEPS_A_FRAME))[2:]
    words = "The GPU was not lent (You have exceeded your GPU quota (60s requested vs. 0s left)): the CPU goes on"
    assert all(f.note(running=True).startswith(words) for f in seen[2:])
    assert [f.device for f in seen] == ["Model T"] * 2 + ["cpu"] * 4
    assert sorted(recordings.of(settings).frames) == [0, 10, 20], "the GPU's recording holds frames of the GPU alone"


def leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for item in value.values():
            yield from leaves(item)
    else:
        yield value
