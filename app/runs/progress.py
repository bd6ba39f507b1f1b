"""How far one visitor's experiment is: plain data, which Gradio keeps in the visitor's session."""

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from app.lab import devices
from app.lab.fit import Experiment, Settings, StepRecord, TrainingDiverged
from app.runs import lent
from app.runs.cache import Recordings
from app.runs.queue import exclusive, in_line

STEPS_A_FRAME = 10
RARE = {"scale": "scale", "width": "width", "learning_rate": "learning rate"}
NEWEST_COUNTS = 1 / 8  # in the moving average of the speed

recordings: "Recordings[Progress]" = Recordings()


class Progress(NamedTuple):
    """The experiment as the visitor sees it now. Not a dataclass: Gradio would copy it at every frame.

    Attributes:
        settings: what the visitor chose.
        snapshot: all that is needed to go on from here.
        record: the losses and curves of this step.
        replayed: whether it was recorded before, and not trained just now.
        speed: optimizer steps a second, measured; 0 where nothing was trained yet.
        refused: why the GPU that the settings name was not lent; the CPU goes on then.
    """

    settings: Settings
    snapshot: dict[str, Any]
    record: StepRecord
    replayed: bool = False
    speed: float = 0.0
    refused: str = ""

    @classmethod
    def start(cls, settings: Settings) -> "Progress":
        """Step 0."""
        recording = recordings.of(settings)
        if 0 not in recording.frames:
            with exclusive():
                experiment = Experiment(settings)
                frame = cls(settings, experiment.snapshot(), experiment.record())
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
            if following is None and progress._is_lent:
                for borrowed in progress._borrow(last):
                    progress = borrowed
                    yield progress
                continue
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
    def device(self) -> str:
        """Where this frame was trained, in words."""
        return devices.title(devices.CPU if self.refused else self.settings.device)

    @property
    def label(self) -> str:
        """Names the network: settings, the rarer ones where they are not as ever, and step."""
        s, usual = self.settings, Settings()
        rare = [
            f", {called} {getattr(s, name)}"
            for name, called in RARE.items()
            if getattr(s, name) != getattr(usual, name)
        ]
        about = f"INT{s.bits:g} {s.granularity.replace('_', ' ')}, seed {s.seed}, noise {s.noise:g}"
        return f"{about}{''.join(rare)}, step {self.step}"

    def note(self, running: bool) -> str:
        """What a visitor should know of how this frame came to be, or why the next one is late; mostly nothing."""
        if self.refused:
            return f"The GPU was not lent ({self.refused}): the CPU goes on with this run."
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
        is_common = _is_whole(self.step) and not self.refused
        frame = recordings.of(self.settings).frames.get(self._goal(last)) if is_common else None
        return frame and frame._replace(replayed=True)

    def _train(self, last: int) -> "Progress":
        """The next frame, recorded if it and this one are frames of everybody's run; needs a turn."""
        recording, goal = recordings.of(self.settings), self._goal(last)
        shared = self._is_shared(goal)
        experiment = recording.live if shared else None
        if experiment is None or experiment.step != self.step:
            experiment = Experiment.restore(self.snapshot)
        begun = time.perf_counter()
        (record,) = experiment.run(STEPS_A_FRAME, goal)
        frame = self._followed_by(record, experiment.snapshot(), time.perf_counter() - begun)
        if shared:
            recording.add(goal, frame, experiment)
        return frame

    def _borrow(self, last: int) -> Iterator["Progress"]:
        """The frames of one slice on a GPU that is lent; where it is not, this frame once more, and why."""
        progress, begun = self, time.perf_counter()
        try:
            for record, state in lent.train_slice(lent.to_arrays(self.snapshot), STEPS_A_FRAME, last):
                now = time.perf_counter()
                following = progress._followed_by(record, lent.to_tensors(state), now - begun)
                if progress._is_shared(record.step):
                    recordings.of(self.settings).add(record.step, following)
                progress, begun = following, now
                yield progress
        except TrainingDiverged:
            raise
        except Exception as error:  # whoever lends says so in an error of theirs: no quota, no GPU, a worker that died
            yield progress._replace(refused=" ".join(str(error).split()) or type(error).__name__)

    @property
    def _is_lent(self) -> bool:
        return self.settings.device != devices.resident(self.settings.device) and not self.refused

    def _is_shared(self, goal: int) -> bool:
        """Are this frame and that of step `goal` frames of everybody's run?"""
        return not self.refused and _is_whole(self.step) and (_is_whole(goal) or goal == self.record.steps)

    def _followed_by(self, record: StepRecord, snapshot: dict[str, Any], seconds: float) -> "Progress":
        speed = (record.step - self.step) / seconds
        average = self.speed + NEWEST_COUNTS * (speed - self.speed) if self.speed else speed
        return Progress(self.settings, snapshot, record, speed=average, refused=self.refused)


def _is_whole(step: int) -> bool:
    return step % STEPS_A_FRAME == 0
