"""How far one visitor's experiment is: plain data, which Gradio keeps in the visitor's session."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from app.lab.fit import Experiment, Settings, StepRecord
from app.runs.cache import Recordings
from app.runs.queue import exclusive, in_line

DEVICE = "cpu"
STEPS_A_FRAME = 10

recordings: "Recordings[Progress]" = Recordings()


class Progress(NamedTuple):
    """The experiment as the visitor sees it now. Not a dataclass: Gradio would copy it at every frame.

    Attributes:
        settings: what the visitor chose.
        snapshot: all that is needed to go on from here.
        record: the losses and curves of this step.
        replayed: whether it was recorded before, and not trained just now.
    """

    settings: Settings
    snapshot: dict[str, Any]
    record: StepRecord
    replayed: bool = False

    @classmethod
    def start(cls, settings: Settings) -> "Progress":
        """Step 0."""
        recording = recordings.of(settings)
        if 0 not in recording.frames:
            with exclusive():
                experiment = Experiment(settings, DEVICE)
                frame = cls._of(experiment, experiment.record())
                recording.add(0, frame, experiment)
        return recording.frames[0]

    def advance(self, until: int | None = None, is_wanted: Callable[[], bool] = lambda: True) -> Iterator["Progress"]:
        """Go on to step `until` (default: the end) while it is wanted, a frame at a time; self is left as it is.

        Frames that were recorded are replayed, all others are trained.

        Raises:
            TrainingDiverged: a training loss is no longer finite.
        """
        progress: Progress = self
        last = self.record.steps if until is None else min(until, self.record.steps)
        while progress.step < last and is_wanted():
            following = progress._replay(last)
            if following is None:
                with exclusive(is_wanted) as mine:
                    if not mine:
                        return
                    following = progress._replay(last) or progress._train(last)
            progress = following
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

    def note(self, running: bool) -> str:
        """What a visitor should know of how this frame came to be, or why the next one is late; mostly nothing."""
        if self.replayed:
            which = "the default" if self.settings == Settings() else "these"
            return f"Replayed: these are the recorded frames of {which} settings."
        others = in_line() if running else 0
        return f"Waiting for {others} {'other' if others == 1 else 'others'}." if others else ""

    def _goal(self, last: int) -> int:
        """The step of the next frame."""
        return min(self.step - self.step % STEPS_A_FRAME + STEPS_A_FRAME, last)

    def _replay(self, last: int) -> "Progress | None":
        """The next frame, if it was recorded."""
        frame = recordings.of(self.settings).frames.get(self._goal(last)) if _is_whole(self.step) else None
        return frame and frame._replace(replayed=True)

    def _train(self, last: int) -> "Progress":
        """The next frame, recorded if it and this one are frames of everybody's run; needs a turn."""
        recording, goal = recordings.of(self.settings), self._goal(last)
        shared = _is_whole(self.step) and (_is_whole(goal) or goal == self.record.steps)
        experiment = recording.live if shared else None
        if experiment is None or experiment.step != self.step:
            experiment = Experiment.restore(self.snapshot, DEVICE)
        (record,) = experiment.run(STEPS_A_FRAME, goal)
        frame = self._of(experiment, record)
        if shared:
            recording.add(goal, frame, experiment)
        return frame

    @classmethod
    def _of(cls, experiment: Experiment, record: StepRecord) -> "Progress":
        return cls(experiment.settings, experiment.snapshot(), record)


def _is_whole(step: int) -> bool:
    return step % STEPS_A_FRAME == 0
