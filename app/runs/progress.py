"""How far one visitor's experiment is: plain data, which Gradio keeps in the visitor's session."""

import time
from collections.abc import Callable, Hashable, Iterator
from typing import NamedTuple

from app.lab import devices
from app.lab.fit import Experiment, Settings, StepRecord, TrainingDiverged
from app.runs import lent
from app.runs.cache import Recordings
from app.runs.queue import exclusive, in_line
from app.runs.snapshots import Snapshot, snapshots

STEPS_A_FRAME = 10
RARE = {"scale": "scale", "width": "width", "learning_rate": "learning rate"}
NEWEST_COUNTS = 1 / 8  # in the moving average of the speed

recordings: "Recordings[Progress]" = Recordings()


class Progress(NamedTuple):
    """The experiment as the visitor sees it now. Not a dataclass: Gradio would copy it at every frame.

    Attributes:
        settings: what the visitor chose.
        record: the losses and curves of this step.
        replayed: whether it was recorded before, and not trained just now.
        speed: optimizer steps a second, measured; 0 where nothing was trained yet.
        refused: why the GPU that the settings name was not lent; the CPU goes on then, from step `lent_until`.
    """

    settings: Settings
    record: StepRecord
    replayed: bool = False
    speed: float = 0.0
    refused: str = ""
    lent_until: int | None = None

    @classmethod
    def start(cls, settings: Settings) -> "Progress":
        """Step 0."""
        recording = recordings.of(settings)
        if 0 not in recording.frames:
            with exclusive():
                experiment = Experiment(settings)
                frame = cls(settings, experiment.record())
                snapshots.keep(settings, 0, experiment.snapshot())
                recording.add(0, frame)
        return recording.frames[0]

    def advance(self, until: int | None = None, is_wanted: Callable[[], bool] = lambda: True) -> Iterator["Progress"]:
        """Go on to step `until` (default: the end) while it is wanted, a frame at a time; self is left as it is.

        Frames that were recorded are replayed, all others are trained.

        Raises:
            TrainingDiverged: a training loss is no longer finite.
        """
        progress: Progress = self
        at_work: Experiment | None = None
        last = self.record.steps if until is None else min(until, self.record.steps)
        while progress.step < last and is_wanted():
            following = progress._replay(last)
            if following is None and progress._is_lent:
                for borrowed in progress._borrow(last):
                    progress = borrowed
                    yield progress
                continue
            if following is None:
                if at_work is None or at_work.step != progress.step:
                    at_work = progress._live(last)
                snapshot = None if at_work else progress._snapshot(is_wanted)
                with exclusive(is_wanted) as mine:
                    if not mine:
                        return
                    following = progress._replay(last)
                    if following is None and snapshot is not None:
                        at_work = Experiment.restore(snapshot)
                    if following is None and at_work is not None:
                        following = progress._train(last, at_work)
            if following is not None:
                progress = following
                yield progress

    @property
    def snapshot(self) -> Snapshot:
        """All that is needed to go on from here. To be asked for without a turn: it may have to be trained again."""
        return self._snapshot(lambda: True)  # type: ignore[return-value]

    @property
    def run(self) -> Hashable:
        """What decides every number of this run: its name among the snapshots."""
        return (self.settings, self.lent_until) if self.refused else self.settings

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

    def _snapshot(self, is_wanted: Callable[[], bool]) -> Snapshot | None:
        """What was dropped is trained again, a frame a turn; None when it is no longer wanted."""
        kept = snapshots.nearest(self.run, self.step)
        if kept and kept[0] == self.step:
            return kept[1]
        experiment: Experiment | None = None
        while True:
            with exclusive(is_wanted) as mine:
                if not mine:
                    return None
                if experiment is None:
                    experiment = Experiment.restore(kept[1]) if kept else Experiment(self.settings)
                next(experiment.run(STEPS_A_FRAME, self.step), None)
                if experiment.step == self.step:
                    snapshot = experiment.snapshot()
                    snapshots.keep(self.run, self.step, snapshot)
                    return snapshot

    def _live(self, last: int) -> Experiment | None:
        """The experiment that somebody trains on just now, if it stands at this frame and may go on to the next."""
        live = recordings.of(self.settings).live if self._is_shared(self._goal(last)) else None
        return live if live is not None and live.step == self.step else None

    def _train(self, last: int, experiment: Experiment) -> "Progress | None":
        """The next frame, recorded if it and this one are frames of everybody's run; needs a turn.

        None where somebody else has trained this experiment on.
        """
        if experiment.step != self.step:
            return None
        goal = self._goal(last)
        begun = time.perf_counter()
        (record,) = experiment.run(STEPS_A_FRAME, goal)
        frame = self._followed_by(record, experiment.snapshot(), time.perf_counter() - begun)
        if self._is_shared(goal):
            recordings.of(self.settings).add(goal, frame, experiment)
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
            refused = " ".join(str(error).split()) or type(error).__name__
            alone = progress._replace(refused=refused, lent_until=progress.step)
            snapshots.keep(alone.run, alone.step, progress.snapshot)
            yield alone

    @property
    def _is_lent(self) -> bool:
        return self.settings.device != devices.resident(self.settings.device) and not self.refused

    def _is_shared(self, goal: int) -> bool:
        """Are this frame and that of step `goal` frames of everybody's run?"""
        return not self.refused and _is_whole(self.step) and (_is_whole(goal) or goal == self.record.steps)

    def _followed_by(self, record: StepRecord, snapshot: Snapshot, seconds: float) -> "Progress":
        snapshots.keep(self.run, record.step, snapshot)
        speed = (record.step - self.step) / seconds
        average = self.speed + NEWEST_COUNTS * (speed - self.speed) if self.speed else speed
        return self._replace(record=record, replayed=False, speed=average)


def _is_whole(step: int) -> bool:
    return step % STEPS_A_FRAME == 0
