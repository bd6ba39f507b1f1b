"""Run, Pause, Step and Reset, for every chapter that trains; what is to be seen goes to the feed.

A visitor has two experiments: their own, which all chapters share, and one that the chapter "QAT" breaks on purpose.
Every handler here gets both and answers for both, so that whatever ends a run can hand it the last frame.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import gradio as gr

from app.components.controls import buttons
from app.handlers import Handlers, show, unchanged
from app.lab.fit import TrainingDiverged
from app.runs.messages import broken, frame
from app.runs.progress import Progress
from app.runs.run import drive, is_running, stop
from app.session import Session
from app.settings import parse_settings

SECONDS_A_FRAME = 0.05
NOT_BROKEN = ""  # the preset that breaks nothing
FEED = "feed"  # to `running`: a last frame fits every chapter that trains with these handlers

Page = tuple[Any, ...]


def build(session: Session, name: str, preset: gr.Radio | gr.State) -> Handlers:
    """Draw the four buttons of a chapter."""
    with gr.Row(elem_classes="run-buttons"):
        run, pause, step, reset = buttons(name, "Run", "Pause", "Step", "Reset")
    common = handlers(session, name, preset)
    common.run(run, train)
    common.pause(pause)
    common.after_the_run(step, train_one_step, "step")
    common.change(reset.click, start_anew)
    return common


def handlers(session: Session, name: str, preset: gr.Radio | gr.State) -> Handlers:
    """What all handlers here are given, and answer for."""
    inputs = [session.progress, session.broken, preset, *session.settings]
    return Handlers(name, inputs, [session.feed, session.progress, session.broken])


def train(
    request: gr.Request,
    progress: Progress,
    broken_run: Progress | None,
    preset: str,
    *settings: Any,
    seconds: float = SECONDS_A_FRAME,
) -> Iterator[Page]:
    """Train to the end, or until asked to stop, showing 20 frames a second; a run that had ended begins again."""

    def start() -> Progress:
        chosen = choose(progress, broken_run, preset, settings)
        return Progress.start(chosen.settings) if chosen.finished else chosen

    def shown(now: Progress | None, **about: Any) -> Page:
        return page(now, preset, **about) if now else page(progress, NOT_BROKEN, **about)

    lean = partial(page, preset=preset, running=True, whole=False)
    yield from drive(request.session_hash, FEED, start, shown, seconds, lean)


def train_quickly(
    request: gr.Request, progress: Progress, broken_run: Progress | None, preset: str, *settings: Any
) -> Iterator[Page]:
    """Train to the end as fast as the machine can."""
    yield from train(request, progress, broken_run, preset, *settings, seconds=0.0)


def train_one_step(progress: Progress, broken_run: Progress | None, preset: str, *settings: Any) -> Page:
    """Exactly one optimizer step."""
    chosen = progress
    try:
        chosen = choose(progress, broken_run, preset, settings)
        chosen = next(chosen.advance(until=chosen.step + 1), chosen)
    except (ValueError, TrainingDiverged) as error:
        return page(chosen, preset, problem=str(error))
    return page(chosen, preset)


def start_anew(
    request: gr.Request, progress: Progress, broken_run: Progress | None, preset: str, *settings: Any
) -> Page:
    """Step 0 of the settings on the page; a run that is at work shows it as its last frame."""
    try:
        fresh = page(Progress.start(broken(parse_settings(*settings), preset)), preset)
    except ValueError as error:
        fresh = page(progress, NOT_BROKEN, problem=str(error))
    return show(request, fresh, FEED)


def follow_settings(request: gr.Request, progress: Progress, *settings: Any) -> Page:
    """Step 0 of the new settings, with nothing broken, unless they are those of the network on the page."""
    try:
        is_new = parse_settings(*settings) != progress.settings
    except ValueError:
        is_new = True
    if is_new:
        return *start_anew(request, progress, None, NOT_BROKEN, *settings), NOT_BROKEN
    answer = unchanged(3) if is_running(request.session_hash) else page(progress, NOT_BROKEN)
    return *answer, NOT_BROKEN


def follow_preset(
    request: gr.Request, progress: Progress, broken_run: Progress | None, preset: str, *settings: Any
) -> Page:
    """Break something, or nothing: the network that is then on the page."""
    stop(request.session_hash)
    try:
        return page(choose(progress, broken_run, preset, settings), preset)
    except ValueError as error:
        return page(progress, NOT_BROKEN, problem=str(error))


def catch_up(progress: Progress) -> str:
    """The visitor's own network as it is now: other chapters move it on, too."""
    return frame(progress, unasked=True)


def choose(progress: Progress, broken_run: Progress | None, preset: str, settings: tuple[Any, ...]) -> Progress:
    """The experiment that the page is about, or step 0 if it should be another by now.

    Raises:
        ValueError: a setting is out of range, or the preset unknown.
    """
    should = broken(parse_settings(*settings), preset)
    there = broken_run if preset else progress
    return there if there is not None and there.settings == should else Progress.start(should)


def page(progress: Progress, preset: str, **about: Any) -> Page:
    """The outputs of every handler: the frame, and the experiment in its place."""
    shown = frame(progress, preset=preset, **about)
    return (shown, gr.skip(), progress) if preset else (shown, progress, gr.skip())
