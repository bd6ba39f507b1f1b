"""What runs need to go on: their tensors, in one place and as many as fit, so that a visitor's session holds none.

A run is decided by its settings. So what was dropped is trained again, from the nearest step before that is still here.
"""

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Any

from app.runs.cache import held_bytes

MAX_BYTES = 64 * 2**20
STEPS_A_SNAPSHOT = 50  # of so many the newest stays; whoever comes back to another trains at most these again

Snapshot = dict[str, Any]
Place = tuple[Hashable, int]


class Snapshots:
    """Run and step -> all that is needed to go on from there; those that were asked for last, as many as fit."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self.max_bytes = max_bytes
        self._guard = threading.Lock()
        self._kept: OrderedDict[Place, Snapshot] = OrderedDict()
        self._bytes: dict[Place, int] = {}
        self._steps: dict[Hashable, set[int]] = {}

    def keep(self, run: Hashable, step: int, snapshot: Snapshot) -> None:
        """Keep it in the place of those that lie shortly before."""
        with self._guard:
            first = step - step % STEPS_A_SNAPSHOT
            for before in [s for s in self._steps.get(run, ()) if first < s < step]:
                self._drop((run, before))
            self._drop((run, step))
            self._kept[run, step] = snapshot
            self._bytes[run, step] = held_bytes(snapshot)
            self._steps.setdefault(run, set()).add(step)
            while len(self._kept) > 1 and sum(self._bytes.values()) > self.max_bytes:
                self._drop(next(iter(self._kept)))

    def nearest(self, run: Hashable, step: int) -> tuple[int, Snapshot] | None:
        """The last one up to a step, and its step."""
        with self._guard:
            place = run, max((s for s in self._steps.get(run, ()) if s <= step), default=-1)
            if place not in self._kept:
                return None
            self._kept.move_to_end(place)
            return place[1], self._kept[place]

    def at(self, run: Hashable, step: int) -> Snapshot | None:
        """That of exactly this step."""
        found = self.nearest(run, step)
        return found[1] if found and found[0] == step else None

    def forget(self) -> None:
        with self._guard:
            for kept in (self._kept, self._bytes, self._steps):
                kept.clear()

    def _drop(self, place: Place) -> None:
        if place in self._kept:
            run, step = place
            del self._kept[place], self._bytes[place]
            self._steps[run].remove(step)
            if not self._steps[run]:
                del self._steps[run]


snapshots = Snapshots()
