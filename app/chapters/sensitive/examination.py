"""A network whose layers are examined and healed: plain data, which Gradio keeps in the visitor's session."""

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import nn

from app.lab.fit import Settings
from app.lab.solo import Solo
from app.lab.tasks import DigitsTask, SineTask
from app.runs.progress import Progress
from app.runs.queue import exclusive
from app.runs.snapshots import snapshots
from qat_core import Mix, PlannedLayer, QATConfig, SensitivityRow, frontier, plan, prepare
from qat_core.sensitivity import only, scan

NETWORK = {"sine": SineTask.model, "digits": DigitsTask.model}
METRIC = {"sine": "mse_clean", "digits": "loss_train"}
WIDTHS = (2, 3, 4, 8)
FLOAT_STEPS_A_FRAME = 25
HEAL_STEPS = {"sine": 1000, "digits": 5 * 23}  # for the digits five epochs
HEAL_STEPS_A_FRAME = {"sine": 20, "digits": 3}
DIGITS_SHOWN = 24
FLOAT, HEALED = "float", "healed"  # in the names of runs among the snapshots

T = TypeVar("T")


@dataclass(frozen=True)
class Examination:
    """How far the examination is.

    Attributes:
        settings: the task, and how its layers are rounded.
        step: of the float network.
        until: the step at which it is examined; None is its last.
        rows: of `sensitivity`, for the layers examined so far.
        uniform: the metrics with all layers at each of WIDTHS.
        mixes: the frontier, once all layers are examined.
        measured: the metrics of the mixes measured so far, in their order.
    """

    settings: Settings
    step: int = 0
    until: int | None = None
    rows: tuple[SensitivityRow, ...] = ()
    uniform: tuple[dict[str, float], ...] = ()
    mixes: tuple[Mix, ...] = ()
    measured: tuple[dict[str, float], ...] = ()

    @classmethod
    def start(cls, settings: Settings, progress: Progress) -> "Examination":
        """The FP32 network that the visitor has trained, as it is now; not trained yet, it is trained here."""
        if progress.settings == settings and progress.step:
            return cls(settings, progress.step, progress.step)
        return cls(settings)

    @property
    def goal(self) -> int:
        return self.settings.steps if self.until is None else self.until

    @property
    def is_trained(self) -> bool:
        return self.step == self.goal

    @property
    def config(self) -> QATConfig:
        """What the page rounds: the weights."""
        return QATConfig(self.settings.config.weight)

    @property
    def layers(self) -> tuple[PlannedLayer, ...]:
        network = NETWORK[self.settings.task](self.settings.width, self.settings.seed)
        return plan(network, self.config).quantized

    @property
    def finished(self) -> bool:
        return bool(self.mixes) and len(self.measured) == len(self.mixes)

    def advance(self, is_wanted: Callable[[], bool] = lambda: True) -> Iterator["Examination"]:
        """Train, scan and measure on while it is wanted; self is left as it is.

        Raises:
            TrainingDiverged: the training loss is no longer finite.
            ValueError: a metric is not finite.
        """
        return in_turns(self._work(), is_wanted)

    def _work(self) -> Iterator["Examination"]:
        for stage, network in self.training():
            exam, solo = stage, network
            yield exam
        metric = METRIC[exam.settings.task]
        if not exam.mixes:
            exam = replace(exam, rows=())
            for row, _ in scan(solo.model, lambda m: solo.task.measure(m)[0][metric], exam.config, bits=WIDTHS):
                exam = replace(exam, rows=(*exam.rows, row))
                yield exam
            every = [QATConfig(replace(exam.config.weight, bits=width)) for width in WIDTHS]
            uniform = tuple(solo.task.measure(prepare(solo.model, config).eval())[0] for config in every)
            exam = replace(exam, uniform=uniform, mixes=tuple(frontier(exam.rows)), measured=())
            yield exam
        for mix in exam.mixes[len(exam.measured) :]:
            mixed = prepare(solo.model, mix.config(exam.rows)).eval()
            exam = replace(exam, measured=(*exam.measured, solo.task.measure(mixed)[0]))
            yield exam

    def training(self) -> Iterator[tuple["Examination", Solo]]:
        """Up to the float network that is examined, a frame a turn: the visitor's own, where it is still kept."""
        own = snapshots.at(self.settings, self.goal)
        if own is not None:
            yield replace(self, step=self.goal), Solo(self.settings, weights=own["models"]["fp32"])
            return
        plain = {name: getattr(Settings(), name) for name in ("bits", "granularity", "scale", "scale_factor")}
        run = FLOAT, replace(self.settings, **plain)  # float knows nothing of these
        kept = snapshots.nearest(run, self.goal)
        solo = Solo.restore(self.settings, kept[1]) if kept else Solo(self.settings)
        if solo.step == self.goal:
            yield replace(self, step=self.goal), solo
        for step in solo.run(FLOAT_STEPS_A_FRAME, self.goal):
            snapshots.keep(run, step, solo.snapshot())
            yield replace(self, step=max(step, self.step)), solo


@dataclass(frozen=True)
class Healing:
    """A crushed network in training.

    Attributes:
        of: the examination whose network it is.
        config: what is rounded.
        layer: the name of the only layer that is, or None when all are.
        bits: of that layer, or of each.
        history: step and metrics, for every frame so far.
        answers: what a network for digits takes the first unseen images for; nothing for the sine.
    """

    of: Examination
    config: QATConfig
    layer: str | None
    bits: tuple[float, ...]
    history: tuple[tuple[int, dict[str, float]], ...]
    answers: tuple[int, ...]

    @classmethod
    def of_worst(cls, exam: Examination, bits: float) -> "Healing":
        """The layer that does most damage at that width; all others in float."""
        worst = max(exam.rows, key=lambda row: row.damage_at(bits))
        config = only(worst.names, QATConfig(replace(exam.config.weight, bits=bits)))
        return cls._start(exam, config, worst.name, (bits,))

    @classmethod
    def of_mix(cls, exam: Examination, mix: Mix) -> "Healing":
        return cls._start(exam, mix.config(exam.rows), None, mix.bits)

    @property
    def step(self) -> int:
        return self.history[-1][0] if self.history else 0

    @property
    def steps(self) -> int:
        return HEAL_STEPS[self.of.settings.task]

    @property
    def finished(self) -> bool:
        return self.step >= self.steps

    def advance(self, is_wanted: Callable[[], bool] = lambda: True) -> Iterator["Healing"]:
        """Train on while it is wanted; self is left as it is.

        Raises:
            TrainingDiverged: the training loss is no longer finite.
        """
        return in_turns(self._work(), is_wanted)

    def network(self) -> nn.Module:
        """The network as it is now, prepared."""
        *_, solo = in_turns(self._training(), lambda: True)
        return solo.model

    def _work(self) -> Iterator["Healing"]:
        healing = self
        for network in self._training():
            solo = network
            if solo.step < self.step:
                yield self
        for _ in solo.run(HEAL_STEPS_A_FRAME[self.of.settings.task]):
            healing = healing._seen(solo)
            yield healing

    def _training(self) -> Iterator[Solo]:
        """The network up to this step, a frame a turn: what was dropped is trained again."""
        settings, kept = self.of.settings, snapshots.nearest(self._run, self.step)
        if kept:
            solo = Solo.restore(settings, kept[1], self.config)
        else:
            for _, network in self.of.training():
                yield network
            solo = Solo(settings, self.steps, network.model.state_dict(), self.config)
        yield solo
        for _ in solo.run(HEAL_STEPS_A_FRAME[settings.task], self.step):
            yield solo

    def _seen(self, solo: Solo) -> "Healing":
        """With what the network does at its step."""
        snapshots.keep(self._run, solo.step, solo.snapshot())
        history = (*self.history, (solo.step, solo.measure()))
        return replace(self, history=history, answers=answers(solo))

    @property
    def _run(self) -> Hashable:
        """What decides every number of it: its name among the snapshots."""
        return HEALED, self.of.settings, self.of.goal, self.layer, self.bits, self.steps

    @classmethod
    def _start(cls, exam: Examination, config: QATConfig, layer: str | None, bits: tuple[float, ...]) -> "Healing":
        fresh = cls(exam, config, layer, bits, (), ())
        *_, solo = in_turns(fresh._training(), lambda: True)
        with exclusive():
            return fresh._seen(solo)


def answers(solo: Solo) -> tuple[int, ...]:
    """The digits that a network reads in the first unseen images."""
    if not isinstance(solo.task, DigitsTask):
        return ()
    with torch.no_grad():
        scores = solo.model(solo.task.data.test_x[:DIGITS_SHOWN])
    return tuple(scores.argmax(1).tolist())


def in_turns(work: Iterator[T], is_wanted: Callable[[], bool]) -> Iterator[T]:
    """Each `next` of `work` in a turn of its own, until it ends or is no longer wanted."""
    while True:
        with exclusive(is_wanted) as mine:
            result = next(work, None) if mine else None
        if result is None:
            return
        yield result
