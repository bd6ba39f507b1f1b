"""How far one visitor's experiment is: plain data, which Gradio keeps in the visitor's session."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from app.lab.fit import MODELS, Experiment, Settings, StepRecord
from app.turns import turn

DEVICE = "cpu"
STEPS_A_FRAME = 10


@dataclass(frozen=True)
class Progress:
    """The experiment as the visitor sees it now.

    Attributes:
        settings: what the visitor chose.
        snapshot: all that is needed to go on from here.
        record: the losses and curves of this step.
        history: step, then the training loss of each model, for every frame so far.
    """

    settings: Settings
    snapshot: dict[str, Any]
    record: StepRecord
    history: tuple[tuple[float, ...], ...]

    @classmethod
    def start(cls, settings: Settings) -> "Progress":
        """Step 0."""
        with turn():
            return cls._of(Experiment(settings, DEVICE), ())

    def advance(self, until: int | None = None, is_wanted: Callable[[], bool] = lambda: True) -> Iterator["Progress"]:
        """Train on to step `until` (default: the end) while it is wanted, a frame at a time; self is left as it is.

        Raises:
            TrainingDiverged: a training loss is no longer finite.
        """
        frames = self._train(until)
        while True:
            with turn(is_wanted) as mine:
                progress = next(frames, None) if mine else None
            if progress is None:
                return
            yield progress

    @property
    def step(self) -> int:
        return self.record.step

    @property
    def finished(self) -> bool:
        return self.step >= self.record.steps

    @property
    def label(self) -> str:
        """Names the network: settings and step."""
        s = self.settings
        return f"INT{s.bits:g} {s.granularity.replace('_', ' ')}, seed {s.seed}, noise {s.noise:g}, step {self.step}"

    def _train(self, until: int | None) -> Iterator["Progress"]:
        """Every `next` of this needs a turn."""
        experiment = Experiment.restore(self.snapshot, DEVICE)
        progress = self
        for record in experiment.run(STEPS_A_FRAME, until):
            progress = self._of(experiment, progress.history, record)
            yield progress

    @classmethod
    def _of(
        cls, experiment: Experiment, history: tuple[tuple[float, ...], ...], record: StepRecord | None = None
    ) -> "Progress":
        record = record or experiment.record()
        losses = tuple(float(f"{record.mse_train[name]:.4g}") for name in MODELS)
        whole_frames = tuple(row for row in history if row[0] % STEPS_A_FRAME == 0)
        return cls(experiment.settings, experiment.snapshot(), record, (*whole_frames, (record.step, *losses)))
