"""Run, Pause, Step and Reset, for every chapter that trains; what is to be seen goes to the feed.

A visitor has two experiments: their own, which all chapters share, and one that the chapter "QAT" breaks on purpose.
Every handler here gets both and answers for both, so that whatever ends a run can hand it the last frame.
"""

import time
from collections.abc import Iterator
from typing import Any

import gradio as gr

from app.frames import broken, frame
from app.lab.fit import Settings, TrainingDiverged
from app.progress import Progress
from app.running import is_running, running, stop
from app.shared import Shared, parse_settings

SECONDS_A_FRAME = 0.05
VISITORS_AT_ONCE = 32  # each holds one of the server's 40 threads while it trains
MINE = ""  # the preset that breaks nothing
FEED = "feed"  # to `running`: a last frame fits every chapter that trains with these handlers

# Values are not preprocessed: `Settings` checks them, and its sentences say what was expected.
# "multiple": otherwise Gradio drops a click that comes before the last event is over.
QUIET: dict[str, Any] = {"show_progress": "hidden", "preprocess": False}
AT_WORK: dict[str, Any] = {"concurrency_id": "training", "concurrency_limit": VISITORS_AT_ONCE}

Page = tuple[Any, Any, Any]


def buttons(shared: Shared, name: str, preset: gr.Radio | gr.State) -> None:
    """Draw the four buttons of a chapter. All of them always work, so the keyboard never loses its place."""
    with gr.Row(elem_classes="run-buttons"):
        run, pause, step, reset = (
            gr.Button(title, variant="primary" if title == "Run" else "secondary", elem_id=f"{name}-{title.lower()}")
            for title in ("Run", "Pause", "Step", "Reset")
        )
    common: dict[str, Any] = {"inputs": inputs(shared, preset), "outputs": outputs(shared), **QUIET}
    run.click(train, **common, trigger_mode="multiple", api_name=f"{name}_run", **AT_WORK)
    pause.click(pause_training, show_progress="hidden", queue=False)
    paused = step.click(pause_training, show_progress="hidden", trigger_mode="multiple", queue=False)
    paused.then(train_one_step, **common, trigger_mode="multiple", api_name=f"{name}_step", concurrency_limit=1)
    reset.click(start_anew, **common)


def inputs(shared: Shared, preset: gr.Radio | gr.State) -> list[Any]:
    return [shared.progress, shared.broken, preset, *shared.settings]


def outputs(shared: Shared) -> list[Any]:
    return [shared.feed, shared.progress, shared.broken]


def train(request: gr.Request, progress: Progress, ill: Progress | None, preset: str, *settings: Any) -> Iterator[Page]:
    """Train to the end, or until asked to stop, showing 20 frames a second; a run that had ended begins again."""
    yield from _train(request, progress, ill, preset, settings, SECONDS_A_FRAME)


def train_quickly(
    request: gr.Request, progress: Progress, ill: Progress | None, preset: str, *settings: Any
) -> Iterator[Page]:
    """Train to the end as fast as the machine can."""
    yield from _train(request, progress, ill, preset, settings, 0.0)


def train_one_step(progress: Progress, ill: Progress | None, preset: str, *settings: Any) -> Page:
    """Exactly one optimizer step."""
    chosen = progress
    try:
        chosen = choose(progress, ill, preset, settings)
        chosen = next(chosen.advance(until=chosen.step + 1), chosen)
    except (ValueError, TrainingDiverged) as error:
        return page(chosen, preset, problem=str(error))
    return page(chosen, preset)


def pause_training(request: gr.Request) -> None:
    """The run shows its last frame itself."""
    stop(request.session_hash)


def start_anew(request: gr.Request, progress: Progress, ill: Progress | None, preset: str, *settings: Any) -> Page:
    """Step 0 of the settings on the page; a run that is at work shows it as its last frame."""
    try:
        fresh = page(Progress.start(wanted(preset, settings)), preset)
    except ValueError as error:
        fresh = page(progress, MINE, problem=str(error))
    return unchanged() if stop(request.session_hash, fresh, FEED) else fresh


def follow_settings(request: gr.Request, progress: Progress, *settings: Any) -> tuple[Any, ...]:
    """Step 0 of the new settings, with nothing broken, unless they are those of the network on the page."""
    try:
        is_new = parse_settings(*settings) != progress.settings
    except ValueError:
        is_new = True
    if is_new:
        return *start_anew(request, progress, None, MINE, *settings), MINE
    answer = unchanged() if is_running(request.session_hash) else page(progress, MINE)
    return *answer, MINE


def follow_preset(request: gr.Request, progress: Progress, ill: Progress | None, preset: str, *settings: Any) -> Page:
    """Break something, or nothing: the network that is then on the page."""
    stop(request.session_hash)
    try:
        return page(choose(progress, ill, preset, settings), preset)
    except ValueError as error:
        return page(progress, MINE, problem=str(error))


def catch_up(progress: Progress) -> str:
    """The visitor's own network as it is now: other chapters move it on, too."""
    return frame(progress, aside=True)


def choose(progress: Progress, ill: Progress | None, preset: str, settings: tuple[Any, ...]) -> Progress:
    """The experiment that the page is about, or step 0 if it should be another by now.

    Raises:
        ValueError: a setting is out of range, or the preset unknown.
    """
    should = wanted(preset, settings)
    there = ill if preset else progress
    return there if there is not None and there.settings == should else Progress.start(should)


def wanted(preset: str, settings: tuple[Any, ...]) -> Settings:
    """What is to be trained by what the page says.

    Raises:
        ValueError: as `choose`.
    """
    return broken(parse_settings(*settings), preset)


def page(progress: Progress, preset: str, **about: Any) -> Page:
    """The outputs of every handler: the frame, and the experiment in its place."""
    shown = frame(progress, preset=preset, **about)
    return (shown, gr.skip(), progress) if preset else (shown, progress, gr.skip())


def unchanged() -> Page:
    """The outputs of a handler that leaves the page to the run at work."""
    return gr.skip(), gr.skip(), gr.skip()


def _train(
    request: gr.Request,
    progress: Progress,
    ill: Progress | None,
    preset: str,
    settings: tuple[Any, ...],
    seconds_a_frame: float,
) -> Iterator[Page]:
    with running(request.session_hash, FEED) as run:
        try:
            progress = choose(progress, ill, preset, settings)
            if progress.finished:
                progress = Progress.start(progress.settings)
            yield page(progress, preset, running=True)
            shown_at = time.monotonic()
            for latest in progress.advance(is_wanted=run.is_wanted):
                progress = latest
                shown_at = max(shown_at + seconds_a_frame, time.monotonic() - seconds_a_frame)
                if not run.sleep(shown_at - time.monotonic()):
                    break
                yield page(progress, preset, running=True, whole=False)
            last = page(progress, preset)
        except TrainingDiverged as error:
            last = page(progress, preset, problem=str(error))
        except ValueError as error:
            last = page(progress, MINE, problem=str(error))
        yield run.last_frame(last)
