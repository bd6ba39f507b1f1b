"""A network whose layers are examined and healed: plain data, which Gradio keeps in the visitor's session."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from app.lab.fit import Settings, copy_tensors
from app.lab.solo import Solo
from app.lab.tasks import DigitsTask, SineTask
from app.runs.progress import Progress
from app.runs.queue import exclusive
from qat_core import Mix, PlannedLayer, QATConfig, SensitivityRow, frontier, plan, prepare
from qat_core.sensitivity import only, scan

NETWORK = {"sine": SineTask.model, "digits": DigitsTask.model}
METRIC = {"sine": "mse_clean", "digits": "loss_train"}
WIDTHS = (2, 3, 4, 8)
FLOAT_STEPS_A_FRAME = 25
HEAL_STEPS = {"sine": 1000, "digits": 5 * 23}  # for the digits five epochs
HEAL_STEPS_A_FRAME = {"sine": 20, "digits": 3}
MOST_KEPT = 16
DIGITS_SHOWN = 24

_kept: dict[Settings, dict[str, Tensor]] = {}  # networks trained here, oldest first; settings decide them entirely

T = TypeVar("T")


@dataclass(frozen=True)
class Examination:
    """How far the examination is.

    Attributes:
        settings: the task, and how its layers are rounded.
        step: of the float network.
        weights: of the float network, or None while it is still to be trained.
        training: where its training was left.
        rows: of `sensitivity`, for the layers examined so far.
        uniform: the metrics with all layers at each of WIDTHS.
        mixes: the frontier, once all layers are examined.
        measured: the metrics of the mixes measured so far, in their order.
    """

    settings: Settings
    step: int = 0
    weights: dict[str, Tensor] | None = None
    training: dict[str, Any] | None = None
    rows: tuple[SensitivityRow, ...] = ()
    uniform: tuple[dict[str, float], ...] = ()
    mixes: tuple[Mix, ...] = ()
    measured: tuple[dict[str, float], ...] = ()

    @classmethod
    def start(cls, settings: Settings, progress: Progress) -> "Examination":
        """The FP32 network that the visitor has trained, as it is now; not trained yet, it is trained here."""
        if progress.settings == settings and progress.step:
            return cls(settings, progress.step, progress.snapshot["models"]["fp32"])
        return cls(settings)

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
        exam = self
        if exam.weights is None:
            for trained in exam._train():
                exam = trained
                yield exam
        solo = Solo(exam.settings, weights=exam.weights)
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

    def _train(self) -> Iterator["Examination"]:
        """Up to trained weights; they are kept for the next visitor with the same settings."""
        plain = {name: getattr(Settings(), name) for name in ("bits", "granularity", "scale", "scale_factor")}
        key = replace(self.settings, **plain)  # float knows nothing of these
        exam = self
        if key not in _kept:
            solo = Solo.restore(key, exam.training) if exam.training else Solo(key)
            for step in solo.run(FLOAT_STEPS_A_FRAME):
                exam = replace(exam, step=step, training=solo.snapshot())
                yield exam
            while len(_kept) >= MOST_KEPT:
                del _kept[next(iter(_kept))]
            _kept[key] = copy_tensors(solo.model.state_dict())
        yield replace(exam, step=self.settings.steps, training=None, weights=_kept[key])


@dataclass(frozen=True)
class Healing:
    """A crushed network in training.

    Attributes:
        settings: task and learning rate.
        config: what is rounded.
        layer: the name of the only layer that is, or None when all are.
        bits: of that layer, or of each.
        snapshot: all that is needed to go on from here.
        history: step and metrics, for every frame so far.
        answers: what a network for digits takes the first unseen images for; nothing for the sine.
    """

    settings: Settings
    config: QATConfig
    layer: str | None
    bits: tuple[float, ...]
    snapshot: dict[str, Any]
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
        return int(self.snapshot["step"])

    @property
    def steps(self) -> int:
        return int(self.snapshot["steps"])

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
        return Solo.restore(self.settings, self.snapshot, self.config).model

    def _work(self) -> Iterator["Healing"]:
        solo = Solo.restore(self.settings, self.snapshot, self.config)
        healing = self
        for step in solo.run(HEAL_STEPS_A_FRAME[self.settings.task]):
            history = (*healing.history, (step, solo.measure()))
            healing = replace(healing, snapshot=solo.snapshot(), history=history, answers=answers(solo))
            yield healing

    @classmethod
    def _start(cls, exam: Examination, config: QATConfig, layer: str | None, bits: tuple[float, ...]) -> "Healing":
        with exclusive():
            solo = Solo(exam.settings, HEAL_STEPS[exam.settings.task], exam.weights, config)
            history = ((0, solo.measure()),)
            return cls(exam.settings, config, layer, bits, solo.snapshot(), history, answers(solo))


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
