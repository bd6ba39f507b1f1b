"""Runs that this server has trained, frame by frame, for everybody who chooses the same settings.

The same settings give the same frames, bit for bit, so a frame is trained once: whoever needs it first
trains it, and all others are shown the recording. Nothing of a visitor is in it but the settings.
"""

import sys
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any, Generic, TypeVar

from torch import Tensor

from app.lab.fit import Experiment, Settings

MAX_BYTES = 48 * 2**20
BYTES_A_TENSOR = 700  # of memory, beside its numbers

Frame = TypeVar("Frame")


class Recording(Generic[Frame]):
    """One run, as far as anybody has followed it.

    Attributes:
        frames: step -> what is shown of it.
        bytes: what the frames take.
    """

    def __init__(self) -> None:
        self.frames: dict[int, Frame] = {}
        self.bytes = 0
        self._live: Callable[[], Experiment | None] = lambda: None

    @property
    def live(self) -> Experiment | None:
        """The experiment that stands at the last frame recorded, as long as somebody trains it."""
        return self._live()

    def add(self, step: int, frame: Frame, live: Experiment | None = None) -> None:
        """Record a frame, at which `live` stands now, if it was trained in this process."""
        self.bytes += held_bytes(frame)
        self.frames[step] = frame
        if live is not None:
            self._live = weakref.ref(live)


class Recordings(Generic[Frame]):
    """The recordings that were asked for last, as many as fit."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self.max_bytes = max_bytes
        self._guard = threading.Lock()
        self._kept: OrderedDict[Settings, Recording[Frame]] = OrderedDict()

    def of(self, settings: Settings) -> Recording[Frame]:
        """The recording of these settings, perhaps an empty one. Somebody's own points are not kept."""
        if settings.points:
            return Recording()
        with self._guard:
            recording = self._kept.setdefault(settings, Recording())
            self._kept.move_to_end(settings)
            while len(self._kept) > 1 and sum(kept.bytes for kept in self._kept.values()) > self.max_bytes:
                self._kept.popitem(last=False)
            return recording

    def forget(self) -> None:
        with self._guard:
            self._kept.clear()


def held_bytes(value: Any) -> int:
    """What a value and all that it holds take in memory; numbers that Python shares are counted where they stand."""
    own = sys.getsizeof(value)
    if isinstance(value, float | int | str | bytes):
        return own
    if isinstance(value, dict):
        return own + sum(map(held_bytes, value.values()))
    if isinstance(value, list | tuple):
        return own + sum(map(held_bytes, value))
    if isinstance(value, Tensor):
        return value.nbytes + BYTES_A_TENSOR
    if is_dataclass(value):
        return own + sum(held_bytes(getattr(value, field.name)) for field in fields(value))
    return own
