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
from app.runs.queue import turn
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
class Case:
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
    def of_visitor(cls, settings: Settings, progress: Progress) -> "Case":
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

    def advance(self, is_wanted: Callable[[], bool] = lambda: True) -> Iterator["Case"]:
        """Train, scan and measure on while it is wanted; self is left as it is.

        Raises:
            TrainingDiverged: the training loss is no longer finite.
            ValueError: a metric is not finite.
        """
        return in_turns(self._work(), is_wanted)

    def _work(self) -> Iterator["Case"]:
        case = self
        if case.weights is None:
            for trained in case._train():
                case = trained
                yield case
        solo = Solo(case.settings, weights=case.weights)
        metric = METRIC[case.settings.task]
        if not case.mixes:
            case = replace(case, rows=())
            for row, _ in scan(solo.model, lambda m: solo.task.measure(m)[0][metric], case.config, bits=WIDTHS):
                case = replace(case, rows=(*case.rows, row))
                yield case
            every = [QATConfig(replace(case.config.weight, bits=width)) for width in WIDTHS]
            uniform = tuple(solo.task.measure(prepare(solo.model, config).eval())[0] for config in every)
            case = replace(case, uniform=uniform, mixes=tuple(frontier(case.rows)), measured=())
            yield case
        for mix in case.mixes[len(case.measured) :]:
            mixed = prepare(solo.model, mix.config(case.rows)).eval()
            case = replace(case, measured=(*case.measured, solo.task.measure(mixed)[0]))
            yield case

    def _train(self) -> Iterator["Case"]:
        """Up to trained weights; they are kept for the next visitor with the same settings."""
        plain = {name: getattr(Settings(), name) for name in ("bits", "granularity", "scale", "scale_factor")}
        key = replace(self.settings, **plain)  # float knows nothing of these
        case = self
        if key not in _kept:
            solo = Solo.restore(key, case.training) if case.training else Solo(key)
            for step in solo.run(FLOAT_STEPS_A_FRAME):
                case = replace(case, step=step, training=solo.snapshot())
                yield case
            while len(_kept) >= MOST_KEPT:
                del _kept[next(iter(_kept))]
            _kept[key] = copy_tensors(solo.model.state_dict())
        yield replace(case, step=self.settings.steps, training=None, weights=_kept[key])


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
    def of_worst(cls, case: Case, bits: float) -> "Healing":
        """The layer that does most damage at that width; all others in float."""
        worst = max(case.rows, key=lambda row: row.damage_at(bits))
        config = only(worst.names, QATConfig(replace(case.config.weight, bits=bits)))
        return cls._start(case, config, worst.name, (bits,))

    @classmethod
    def of_mix(cls, case: Case, mix: Mix) -> "Healing":
        return cls._start(case, mix.config(case.rows), None, mix.bits)

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
    def _start(cls, case: Case, config: QATConfig, layer: str | None, bits: tuple[float, ...]) -> "Healing":
        with turn():
            solo = Solo(case.settings, HEAL_STEPS[case.settings.task], case.weights, config)
            history = ((0, solo.measure()),)
            return cls(case.settings, config, layer, bits, solo.snapshot(), history, answers(solo))


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
        with turn(is_wanted) as mine:
            result = next(work, None) if mine else None
        if result is None:
            return
        yield result
