"""How far one visitor's experiment is: plain data, which Gradio keeps in the visitor's session."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from app.lab.fit import MODELS, Experiment, Settings, StepRecord

DEVICE = "cpu"
STEPS_A_FRAME = 25

# torch.export patches nn.Module for the whole process while it traces, and seeding is global too:
# training, starting and exporting take turns. A turn of training is one frame, about 40 ms.
TORCH = threading.Lock()


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
        with TORCH:
            return cls._of(Experiment(settings, DEVICE), ())

    def advance(self, until: int | None = None) -> Iterator["Progress"]:
        """Train on to step `until` (default: the end), a frame at a time; self is left as it is.

        Raises:
            TrainingDiverged: a training loss is no longer finite.
        """
        with TORCH:
            experiment = Experiment.restore(self.snapshot, DEVICE)
        frames = experiment.run(STEPS_A_FRAME, until)
        progress = self
        while True:
            with TORCH:
                record = next(frames, None)
                if record is None:
                    return
                progress = self._of(experiment, progress.history, record)
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

    @classmethod
    def _of(
        cls, experiment: Experiment, history: tuple[tuple[float, ...], ...], record: StepRecord | None = None
    ) -> "Progress":
        record = record or experiment.record()
        losses = tuple(record.mse_train[name] for name in MODELS)
        whole_frames = tuple(row for row in history if row[0] % STEPS_A_FRAME == 0)
        return cls(experiment.settings, experiment.snapshot(), record, (*whole_frames, (record.step, *losses)))
