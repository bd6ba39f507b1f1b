"""One network alone: trained in float, or crushed and healed by training on."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from app.lab import devices
from app.lab.fit import Settings, TrainingDiverged, copy_tensors
from app.lab.tasks import make_task
from app.lab.threads import fix_threads
from qat_core import QATConfig, prepare


class Solo:
    """One network in training: Adam, cosine decay to 0.

    In float it ends where the FP32 network of an `Experiment` with the same settings ends.

    Args:
        settings: task, data, first weights and learning rate.
        steps: how many optimizer steps; None is as many as the settings say.
        weights: to start from; None is the first weights of the settings.
        config: what is quantized from the first step on; None is nothing.
    """

    def __init__(
        self,
        settings: Settings,
        steps: int | None = None,
        weights: dict[str, Tensor] | None = None,
        config: QATConfig | None = None,
    ) -> None:
        fix_threads()
        self.settings, self.config = settings, config
        self.steps = settings.steps if steps is None else steps
        self.step = 0
        self.device = devices.place(devices.resident(settings.device))
        self.task = make_task(settings.task, settings.noise, settings.seed, self.device, settings.points)
        self.model = self.task.model(settings.width, settings.seed).to(self.device)
        if weights is not None:
            self.model.load_state_dict(weights)
        if config is not None:
            self.model = prepare(self.model, config)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=settings.learning_rate)

    def run(self, every: int, until: int | None = None) -> Iterator[int]:
        """Train to step `until` (default: the end) and yield the step every `every` steps and at the last.

        Raises:
            TrainingDiverged: the training loss is no longer finite.
        """
        last = self.steps if until is None else min(until, self.steps)
        while self.step < last:
            self._optimize()
            if self.step % every == 0 or self.step == last:
                yield self.step

    def measure(self) -> dict[str, float]:
        """Metrics by name."""
        fix_threads()
        metrics, _ = self.task.measure(self.model.eval())
        self.model.train()
        return metrics

    def snapshot(self) -> dict[str, Any]:
        """All that a later `restore` needs besides the settings and the config: CPU tensors of its own."""
        state = {"step": self.step, "model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        return {"steps": self.steps, **copy_tensors(state)}

    @classmethod
    def restore(cls, settings: Settings, snapshot: dict[str, Any], config: QATConfig | None = None) -> "Solo":
        """The network as it was when `snapshot` was taken."""
        solo = cls(settings, snapshot["steps"], config=config)
        snapshot = copy_tensors(snapshot)
        solo.step = snapshot["step"]
        solo.model.load_state_dict(snapshot["model"])
        solo.optimizer.load_state_dict(snapshot["optimizer"])
        return solo

    def _optimize(self) -> None:
        fix_threads()
        rate = self.settings.learning_rate * (1 + math.cos(math.pi * self.step / self.steps)) / 2
        self.optimizer.param_groups[0]["lr"] = rate
        self.optimizer.zero_grad()
        loss = self.task.loss(self.model, self.step)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.step += 1
        if not math.isfinite(value := loss.item()):
            raise TrainingDiverged(
                f"training stopped at step {self.step}: the loss is {value}; "
                f"try a learning rate below {self.settings.learning_rate:g}"
            )
