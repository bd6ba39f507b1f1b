"""Chapter: one optimizer step, taken apart with the real tensors."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from app.chapters.one_step.numbers import Choice, contents
from app.chapters.one_step.sources import sources
from app.components.code import prose
from app.components.module import module_view
from app.handlers import QUIET
from app.lab.fit import TrainingDiverged
from app.runs import messages
from app.runs.messages import to_json
from app.runs.progress import Progress
from app.runs.run import is_running
from app.session import Session, up_to_date

HERE = Path(__file__).parent
TITLE = "One step, taken apart"
LEAD = "One optimizer step of your network, taken apart number by number."
USES = ("bits", "granularity", "scale", "device")

STRIDES = (1, 25, 100)


def build(session: Session) -> None:
    """Draw the chapter."""
    with gr.Row(elem_classes="chapter wide"):
        with gr.Column(elem_classes="picture"):
            first = frame(session.progress.value, Choice())
            view = module_view(HERE / "one_step.js", first, "one-step", sources=to_json(sources()))
        with gr.Column(elem_classes="text"):
            prose(HERE / "text.md")

    inputs = [session.progress, *session.settings]
    view.select(look, inputs, [view, session.progress], **QUIET, trigger_mode="always_last")
    outputs = [view, session.feed, session.progress]
    view.submit(take_steps, inputs, outputs, **QUIET, trigger_mode="multiple", concurrency_limit=1)


def look(request: gr.Request, event: gr.EventData, progress: Progress, *settings: Any) -> tuple[Any, ...]:
    """The coming step, seen from the weight that the visitor picked."""
    question = Question.of(event)
    if is_running(request.session_hash):  # and about to end, since its chapter was left; the page asks again
        return question.answer({"busy": True}), gr.skip()
    try:
        latest = up_to_date(progress, settings)
        return question.answer(contents(latest, parse_choice(event._data))), gr.skip() if latest is progress else latest
    except (ValueError, TrainingDiverged) as error:
        return question.answer({"problem": str(error)}), gr.skip()


def take_steps(request: gr.Request, event: gr.EventData, progress: Progress, *settings: Any) -> tuple[Any, ...]:
    """Move the visitor's training on by some steps, in all chapters, then look at the next one."""
    question = Question.of(event)
    if is_running(request.session_hash):
        busy = "Training is at work in another chapter. Press Pause there first."
        return question.answer({"problem": busy}), gr.skip(), gr.skip()
    try:
        choice, steps = parse_choice(event._data), parse_steps(event._data)
        progress = up_to_date(progress, settings)
        for later in progress.advance(until=progress.step + steps):
            progress = later
        return question.answer(contents(progress, choice)), messages.frame(progress), progress
    except (ValueError, TrainingDiverged) as error:
        return question.answer({"problem": str(error)}), gr.skip(), progress


def parse_choice(data: Any) -> Choice:
    """What the browser sent; which layers and weights there are, the network knows.

    Raises:
        ValueError: it is no choice; the message names it and what was expected.
    """
    if not isinstance(data, dict) or not isinstance(data.get("layer"), str):
        raise ValueError(f"{str(data)[:60]} is no choice of a weight; expected layer, row and col")
    cell = [data.get("row"), data.get("col")]
    if cell != [None, None] and not all(isinstance(i, int) and not isinstance(i, bool) for i in cell):
        raise ValueError(f"row={str(cell[0])[:20]}, col={str(cell[1])[:20]}; expected two whole numbers")
    return Choice(data["layer"][:20], *cell)


def parse_steps(data: dict[str, Any]) -> int:
    steps = data.get("steps")
    if isinstance(steps, bool) or steps not in STRIDES:
        raise ValueError(f"steps={str(steps)[:20]}; expected one of {', '.join(map(str, STRIDES))}")
    return int(steps)


@dataclass(frozen=True)
class Question:
    """What the browser asks.

    Attributes:
        number: counts its questions; the answer carries it, so that the page knows which answer is the last.
        has: names the matrix that it has, which need not be sent again.
    """

    number: int
    has: str

    @classmethod
    def of(cls, event: gr.EventData) -> "Question":
        data = event._data if isinstance(event._data, dict) else {}
        number, has = data.get("asked"), data.get("has")
        return cls(number if type(number) is int else 0, has if isinstance(has, str) else "")

    def answer(self, contents: dict[str, Any]) -> str:
        if contents.get("matrix") == self.has:
            contents = {name: value for name, value in contents.items() if name not in ("codes", "flips")}
        return to_json({**contents, "asked": self.number})


def frame(progress: Progress, choice: Choice) -> str:
    """The first answer, which nobody asked for."""
    return Question(0, "").answer(contents(progress, choice))
