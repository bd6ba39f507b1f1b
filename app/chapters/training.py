"""Chapter: three networks learn the same sine, and you watch."""

import time
from collections.abc import Iterator
from typing import Any

import gradio as gr

from app.lab.data import Sine
from app.lab.fit import MODELS, StepRecord, TrainingDiverged
from app.progress import Progress
from app.running import is_running, running, stop
from app.shared import Shared, parse_settings, up_to_date
from app.view import module_view, prose, rounded, to_json

KEY, TITLE = "training", "Training"

SECONDS_A_FRAME = 0.1  # quicker than this the eye cannot follow; the 2,000 steps themselves take about 4 s
VISITORS_AT_ONCE = 24  # each holds one of the server's 40 threads while it trains


def build(shared: Shared) -> None:
    """Draw the chapter."""
    with gr.Column(elem_id="lab"):
        with gr.Row(elem_id="buttons"):
            run = gr.Button("Run", variant="primary", elem_id="run")
            pause = gr.Button("Pause", interactive=False, elem_id="pause")
            step = gr.Button("Step", elem_id="step")
            reset = gr.Button("Reset", interactive=False, elem_id="reset")
        view = module_view("training.js", frame(shared.progress.value), elem_id="training")
    prose(__file__)

    # Not preprocessed: `Settings` checks the values, and its sentences say what was expected.
    # "multiple": otherwise Gradio drops a click that comes before the last event is over.
    common: dict[str, Any] = {
        "inputs": [shared.progress, *shared.settings],
        "outputs": [view, shared.progress, run, pause, step, reset],
        "show_progress": "hidden",
        "preprocess": False,
    }
    run.click(train, **common, trigger_mode="multiple", concurrency_id="training", concurrency_limit=VISITORS_AT_ONCE)
    pause.click(pause_training, show_progress="hidden")
    step.click(train_one_step, **common, trigger_mode="multiple", concurrency_limit=1)
    reset.click(start_anew, **common)
    changes = [setting.change for setting in shared.settings]  # type: ignore[attr-defined]
    gr.on(changes, follow_settings, **common, trigger_mode="always_last")


def train(request: gr.Request, progress: Progress, *settings: Any) -> Iterator[tuple[Any, ...]]:
    """Train to the end, or until asked to stop, showing a frame every tenth of a second."""
    with running(request.session_hash) as run:
        try:
            progress = up_to_date(progress, settings)
            yield page(progress, running=True)
            shown_at = time.monotonic()
            for latest in progress.advance(is_wanted=run.is_wanted):
                progress = latest
                shown_at = max(shown_at + SECONDS_A_FRAME, time.monotonic())
                if not run.sleep(shown_at - time.monotonic()):
                    break
                yield page(progress, running=True)
            last = page(progress)
        except (ValueError, TrainingDiverged) as error:
            last = page(progress, problem=str(error))
        yield run.last_frame(last)


def train_one_step(progress: Progress, *settings: Any) -> tuple[Any, ...]:
    """Exactly one optimizer step."""
    try:
        progress = up_to_date(progress, settings)
        progress = next(progress.advance(until=progress.step + 1), progress)
    except (ValueError, TrainingDiverged) as error:
        return page(progress, problem=str(error))
    return page(progress)


def pause_training(request: gr.Request) -> None:
    """The run shows its last frame itself."""
    stop(request.session_hash)


def start_anew(request: gr.Request, progress: Progress, *settings: Any) -> tuple[Any, ...]:
    """Step 0 of the settings on the page; a run that is at work shows it as its last frame."""
    try:
        fresh = page(Progress.start(parse_settings(*settings)))
    except ValueError as error:
        fresh = page(progress, problem=str(error))
    return unchanged() if stop(request.session_hash, fresh) else fresh


def follow_settings(request: gr.Request, progress: Progress, *settings: Any) -> tuple[Any, ...]:
    """Step 0 of the new settings, unless they are those of the network on the page."""
    try:
        is_new = parse_settings(*settings) != progress.settings
    except ValueError:
        is_new = True
    if is_new:
        return start_anew(request, progress, *settings)
    return unchanged() if is_running(request.session_hash) else page(progress)


def page(progress: Progress, running: bool = False, problem: str = "") -> tuple[Any, ...]:
    """The outputs of every handler: the view, the state and the four buttons."""
    can_train = not (running or problem or progress.finished)
    return (
        frame(progress, running, problem),
        progress,
        gr.Button(interactive=can_train),
        gr.Button(interactive=running),
        gr.Button(interactive=can_train),
        gr.Button(interactive=running or bool(problem) or progress.step > 0),
    )


def unchanged() -> tuple[Any, ...]:
    """The outputs of a handler that leaves the page to the run at work."""
    return tuple(gr.skip() for _ in range(6))


def frame(progress: Progress, running: bool = False, problem: str = "") -> str:
    """What `training.js` draws."""
    record, settings = progress.record, progress.settings
    data = Sine.sample(settings.noise, settings.seed)
    return to_json(
        {
            "step": record.step,
            "steps": record.steps,
            "label": progress.label,
            "running": running,
            "problem": problem,
            "words": in_words(record, settings.bits),
            "flips": record.flips,
            "codes": record.codes,
            "loss": record.mse_train,
            "error": record.mse_clean,
            "curves": {name: rounded(record.curves[name]) for name in MODELS},
            "history": progress.history,
            "noisy": rounded(data.y.flatten().tolist(), 2),
            "clean": rounded(data.clean.flatten().tolist()),
        }
    )


def in_words(record: StepRecord, bits: float) -> str:
    """One sentence about what there is to see now."""
    if record.step == 0:
        return "Nothing is learned yet: all three start from the same random weights. Press Run."
    error = record.mse_clean
    ratio = error["ptq"] / max(error["qat"], 1e-12)
    verdict = "about the same"
    if ratio > 1.5:
        verdict = f"{short(ratio)} times less"
    elif ratio < 1 / 1.5:
        verdict = f"for now {short(1 / ratio)} times more"
    return (
        f"At step {record.step:,}, rounding the FP32 network to {bits:g} bits (PTQ) gives an error of "
        f"{short(error['ptq'])}; training with the rounding (QAT) gives {short(error['qat'])}: {verdict}."
    )


def short(value: float) -> str:
    """Two digits are enough to compare."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"
