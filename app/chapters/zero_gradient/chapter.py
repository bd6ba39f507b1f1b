"""Chapter: round() has no slope, and what that does to training."""

import base64
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr
import numpy as np
from torch import Tensor

from app.components.code import listing, prose
from app.components.controls import buttons, choice
from app.components.module import module_view
from app.handlers import Handlers, show, unchanged
from app.lab.data import Sine
from app.lab.estimators import (
    FREE,
    LAYER,
    NOISE,
    STEPS,
    WIDTH,
    Estimators,
    RuleRecord,
    Slice,
    plain_quantize,
    slice_along,
)
from app.lab.fit import TrainingDiverged
from app.runs.messages import rounded, to_json
from app.runs.queue import exclusive
from app.runs.run import drive, is_running
from app.runs.snapshots import snapshots
from app.session import HOUR, Session
from qat_core.ste import STEQuantize

HERE = Path(__file__).parent
KEY = HERE.name
TITLE = "The zero gradient"
LEAD = "round() is flat nearly everywhere, so its gradient is 0. Train through it, and see that nothing moves."
USES = ()  # a small network of its own, always the same

STEPS_A_FRAME = 8
SECONDS_A_FRAME = 0.1


class Lesson(NamedTuple):
    """The three networks as the visitor sees them now. Not a dataclass: Gradio would copy it at every frame.

    Attributes:
        free: what may learn.
        step: of their training.
        records: rule -> its network.
        history: step, then the loss of each network, for every frame so far.
        cut: the loss along the weight that the visitor picked, as it was when last looked at.
    """

    free: str
    step: int
    records: dict[str, RuleRecord]
    history: tuple[tuple[float, ...], ...]
    cut: Slice

    @classmethod
    def start(cls, free: str = FREE[0]) -> "Lesson":
        """Step 0.

        Raises:
            ValueError: `free` is none of FREE.
        """
        with exclusive():
            estimators = Estimators(free)
            return cls._of(estimators, (), slice_along(estimators))

    def advance(self, until: int | None = None, is_wanted: Callable[[], bool] = lambda: True) -> Iterator["Lesson"]:
        """Train on to step `until` (default: the end) while it is wanted, a frame at a time; self is left as it is."""
        with exclusive():
            estimators = self._estimators()
        lesson, frames = self, estimators.run(STEPS_A_FRAME, STEPS if until is None else min(until, STEPS))
        while is_wanted():
            with exclusive():
                if next(frames, None) is None:
                    return
                lesson = self._of(estimators, lesson.history, self.cut)
            yield lesson

    def at(self, row: int, col: int) -> "Lesson":
        """The same networks, cut along a weight.

        Raises:
            ValueError: there is no such weight.
        """
        with exclusive():
            return self._replace(cut=slice_along(self._estimators(), row, col))

    def looked_at(self) -> "Lesson":
        """The same, with the cut as it is now."""
        return self.at(self.cut.row, self.cut.col)

    def _estimators(self) -> Estimators:
        """The three networks at this step; needs a turn. What was dropped is trained again: it takes a second."""
        kept = snapshots.nearest(_run(self.free), self.step)
        estimators = Estimators.restore(kept[1]) if kept else Estimators(self.free)
        for _ in estimators.run(STEPS, self.step):
            pass
        return estimators

    @classmethod
    def _of(cls, estimators: Estimators, history: tuple[tuple[float, ...], ...], cut: Slice) -> "Lesson":
        records = estimators.record()
        row = (estimators.step, *(float(f"{record.loss:.4g}") for record in records.values()))
        snapshots.keep(_run(estimators.free), estimators.step, estimators.snapshot())
        return cls(estimators.free, estimators.step, records, (*history, row), cut)


def _run(free: str) -> tuple[str, str]:
    """Its name among the snapshots."""
    return KEY, free


def build(session: Session) -> None:
    """Draw the chapter."""
    first = Lesson.start()
    state = gr.State(first, time_to_live=HOUR)
    with gr.Row(elem_classes="chapter wide"):
        with gr.Column(elem_classes="picture"):
            with gr.Row(elem_classes="run-buttons"):
                run, pause, step, reset = buttons("zero", "Train", "Pause", "Step", "Reset")
            kinds = [("the weights", "weights"), ("and the biases", "biases"), ("and the scales", "scales")]
            free = choice("zero-free", "What may learn", kinds, FREE[0])
            view = module_view(HERE / "zero_gradient.js", frame(first), elem_id="zero-gradient")
        with gr.Column(elem_classes="text"):
            prose(HERE / "text.md")
            listing(plain_quantize, STEQuantize)

    common = Handlers(KEY, [state, free], [view, state])
    common.run(run, train)
    common.pause(pause)
    common.after_the_run(step, train_one_step, "step")
    common.change(reset.click, start_anew)
    common.change(free.change, follow_choice)
    common.change(view.select, cut)


def train(request: gr.Request, lesson: Lesson, free: Any) -> Iterator[tuple[Any, ...]]:
    """Train to the end, or until asked to stop; a run that had ended begins again."""

    def start() -> Lesson:
        chosen = up_to_date(lesson, free)
        return Lesson.start(chosen.free) if chosen.step >= STEPS else chosen

    def shown(now: Lesson | None, running: bool = False, problem: str = "") -> tuple[Any, ...]:
        return page(now.looked_at() if now and not running and not problem else now or lesson, running, problem)

    yield from drive(request.session_hash, KEY, start, shown, SECONDS_A_FRAME)


def train_one_step(lesson: Lesson, free: Any) -> tuple[Any, ...]:
    """Exactly one optimizer step of each network."""
    try:
        lesson = up_to_date(lesson, free)
        lesson = next(lesson.advance(lesson.step + 1), lesson).looked_at()
    except (ValueError, TrainingDiverged) as error:
        return page(lesson, problem=str(error))
    return page(lesson)


def start_anew(request: gr.Request, lesson: Lesson, free: Any) -> tuple[Any, ...]:
    """Step 0; a run that is at work shows it as its last frame."""
    try:
        fresh = page(Lesson.start(free))
    except ValueError as error:
        fresh = page(lesson, problem=str(error))
    return show(request, fresh, KEY)


def follow_choice(request: gr.Request, lesson: Lesson, free: Any) -> tuple[Any, ...]:
    """Step 0 of what may learn now, unless a click that came after the choice has begun it."""
    return unchanged(2) if lesson.free == free else start_anew(request, lesson, free)


def cut(request: gr.Request, event: gr.EventData, lesson: Lesson, free: Any) -> tuple[Any, ...]:
    """The loss along the weight that the visitor picked; while a run is at work, it alone writes to the page."""
    if is_running(request.session_hash):
        return unchanged(2)
    data = event._data if isinstance(event._data, dict) else {}
    row, col = data.get("row"), data.get("col")
    try:
        if type(row) is not int or type(col) is not int:
            raise ValueError(f"row={str(row)[:20]}, col={str(col)[:20]}; expected two whole numbers")
        return page(up_to_date(lesson, free).at(row, col))
    except ValueError as error:
        return page(lesson, problem=str(error))


def up_to_date(lesson: Lesson, free: Any) -> Lesson:
    """The visitor's lesson, or step 0 if the choice on the page is another by now."""
    return lesson if lesson.free == free else Lesson.start(free)


def page(lesson: Lesson, running: bool = False, problem: str = "") -> tuple[Any, ...]:
    """The outputs of every handler: the view and the state."""
    return frame(lesson, running, problem), lesson


def frame(lesson: Lesson, running: bool = False, problem: str = "") -> str:
    """What `zero_gradient.js` draws."""
    data = Sine.sample(NOISE)
    return to_json(
        {
            "step": lesson.step,
            "steps": STEPS,
            "free": lesson.free,
            "running": running,
            "problem": problem,
            "words": in_words(lesson),
            "size": WIDTH,
            "layer": LAYER,
            "rules": {name: of_rule(record) for name, record in lesson.records.items()},
            "history": lesson.history,
            "noisy": rounded(data.y.flatten().tolist()[::2], 2),
            "clean": rounded(data.clean.flatten().tolist()[::2]),
            "cut": {
                name: digits(value.tolist()) if isinstance(value, Tensor) else value
                for name, value in vars(lesson.cut).items()
            },
        }
    )


def of_rule(record: RuleRecord) -> dict[str, Any]:
    """One network: its gradients as signed bytes, 127 the largest, and never 0 unless they are exactly 0."""
    gradient = record.gradient.numpy()
    largest = np.abs(gradient).max() or 1.0
    levels = np.sign(gradient) * np.maximum(1, np.round(127 * np.abs(gradient) / largest))
    return {
        "loss": record.loss,
        "curve": rounded(record.curve),
        "gradient": base64.b64encode(levels.astype(np.int8).tobytes()).decode(),
        "largest": float(f"{np.abs(gradient).max():.4g}"),
        "still": {kind: vars(still) for kind, still in record.still.items()},
    }


def in_words(lesson: Lesson) -> str:
    """One sentence about what there is to see now."""
    plain, ste = lesson.records["round"], lesson.records["ste"]
    weights, biases, scales = (plain.still[kind] for kind in ("weights", "biases", "scales"))
    before = lesson.history[0][1 + list(lesson.records).index("round")]
    if lesson.step == 0:
        return (
            f"All {weights.zero} gradients that reach the weights through torch.round() are exactly 0. "
            "Press Train, and see what moves."
        )
    change = f"the loss was {before:.3g} at step 0 and is"
    others = {
        "weights": "Nothing moved at all: the loss is what it was at step 0:",
        "biases": f"{biases.moved} of {biases.count} biases moved: {change}",
        "scales": f"{biases.moved} of {biases.count} biases and {scales.moved} of {scales.count} scales moved: "
        f"{change}",
    }
    return (
        f"Step {lesson.step}. Through torch.round(), {weights.moved} of {weights.count} weights moved. "
        f"{others[lesson.free]} {plain.loss:.3g}. With the straight-through estimator (STE) it is {ste.loss:.3g}."
    )


def digits(values: list[float]) -> list[float]:
    """Five digits draw a curve."""
    return [float(f"{value:.5g}") for value in values]
