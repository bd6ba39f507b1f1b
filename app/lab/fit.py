"""Train a network in float32 and its quantized twin, and crush a third, one step record after another.

`Experiment.run()` is a generator: the page, the terminal and the tests all consume it. Between two
records nothing runs; `snapshot()` and `restore()` carry the work across a pause.
"""

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from app.lab import devices
from app.lab.points import Points, check_points
from app.lab.tasks import TASKS, Curve, make_task
from app.lab.threads import fix_threads
from app.lab.weights import WeightRecord, largest_layer, look, multiply_scales
from qat_core import Oscillations, QATConfig, QuantSpec, Schedule, calibrate, convert, prepare
from qat_core.layers import quantized_layers

MODELS = ("fp32", "ptq", "qat")


class TrainingDiverged(RuntimeError):
    """A loss became NaN or infinite; the message says which, when and what to try."""


@dataclass(frozen=True)
class Settings:
    """Everything that decides the outcome of a run. `Settings.of(task)` has the defaults of that task.

    Data and first weights are drawn on the CPU, so all devices start alike; their sums differ in the last bits.

    Attributes:
        scale_factor: times every weight's scale, to see what a scale that does not fit does: far below 1 most weights
            are clipped, far above 1 most are rounded to 0.
        points: (x, y) pairs, what the task "points" fits; nothing for the other tasks.
        device: where it is trained; "auto" is the best that this machine has, and the settings bear its name.

    Raises:
        ValueError: a value is out of range; the message names it and what was expected.
    """

    task: str = "sine"
    bits: float = 4
    granularity: str = "per_tensor"
    scale: str = "minmax"
    activation_bits: int | None = None
    seed: int = 0
    noise: float = 0.1
    steps: int = 2000
    width: int = 64
    learning_rate: float = 1e-2
    scale_factor: float = 1.0
    points: Points = ()
    device: str = devices.AUTO

    @classmethod
    def of(cls, task: str, **changes: Any) -> "Settings":
        """The defaults of a task, changed; a change to None is none."""
        defaults = TASKS.get(task, TASKS["sine"])
        given = {name: value for name, value in changes.items() if value is not None}
        return cls(
            **{
                "task": task,
                "bits": defaults.bits,
                "steps": defaults.steps,
                "learning_rate": defaults.learning_rate,
                **given,
            }
        )

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise ValueError(f"task={self.task!r}; expected one of {', '.join(TASKS)}")
        if self.task == "points":
            check_points(self.points)
        elif self.points:
            raise ValueError(f"points for task={self.task!r}; expected none, or task='points'")
        object.__setattr__(self, "device", devices.check(self.device))
        _ = self.config
        for name, low, high in (("seed", 0, 2**31 - 1), ("steps", 1, 1_000_000), ("width", 1, 4096)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise ValueError(f"{name}={value!r}; expected a whole number from {low} to {high}")
        if not (isinstance(self.noise, int | float) and 0 <= self.noise <= 10):
            raise ValueError(f"noise={self.noise!r}; expected a number from 0 to 10")
        for name in ("learning_rate", "scale_factor"):
            value = getattr(self, name)
            if not (isinstance(value, int | float) and 0 < value < math.inf):
                raise ValueError(f"{name}={value!r}; expected a positive number")

    @property
    def config(self) -> QATConfig:
        """What `prepare` is given. Activations share the weights' scale rule.

        With activations all scales are powers of two: every product and partial sum is then exact in float32, so
        that no other order of summation, as in onnxruntime, can land on the other side of a rounding tie.
        """
        exact = self.activation_bits is not None
        weight = QuantSpec(self.bits, self.granularity, scale=self.scale, power_of_two=exact)  # type: ignore[arg-type]
        if self.activation_bits is None:
            return QATConfig(weight)
        return QATConfig(weight, QuantSpec.activation(self.activation_bits, scale=self.scale, power_of_two=exact))


@dataclass(frozen=True)
class StepRecord:
    """What the three models look like after `step` optimizer steps.

    Attributes:
        step, steps: how far the run is.
        metrics: name of a metric -> model -> value: mse_train (against the noisy points) and mse_clean (against the
            sine without noise), for points mse_train alone, for the digits loss_train and accuracy (on images never
            seen).
        curves: model -> its output on the 128 points of the task's grid; empty for the digits.
        flips: weight codes of the QAT model that changed since the record before.
        codes: how many weight codes the QAT model has.
        weights: how the QAT model's weights lie on their grid.
    """

    step: int
    steps: int
    metrics: dict[str, dict[str, float]]
    curves: dict[str, Curve]
    flips: int
    codes: int
    weights: WeightRecord

    @property
    def mse_train(self) -> dict[str, float]:
        return self.metrics["mse_train"]

    @property
    def mse_clean(self) -> dict[str, float]:
        return self.metrics["mse_clean"]


class Experiment:
    """Two networks in training, FP32 and QAT, and the PTQ twin of the first.

    All start from the same weights and see the same batches: Adam, cosine decay to 0.

    Args:
        settings: of the run.
        device: to compute on instead of the one that the settings name.
    """

    def __init__(self, settings: Settings, device: str | None = None) -> None:
        fix_threads()
        self.settings = settings
        self.device = devices.place(devices.resident(settings.device) if device is None else devices.check(device))
        self.task = make_task(settings.task, settings.noise, settings.seed, self.device, settings.points)
        self.step = 0
        fp32 = self.task.model(settings.width, settings.seed).to(self.device)
        self.models = {
            "fp32": fp32,
            "ptq": prepare(fp32, settings.config),
            "qat": prepare(fp32, settings.config),
        }
        if settings.scale_factor != 1:
            for name in ("ptq", "qat"):
                multiply_scales(self.models[name], settings.scale_factor)
        self.optimizers = {
            name: torch.optim.Adam(self.models[name].parameters(), lr=settings.learning_rate)
            for name in ("fp32", "qat")
        }
        self.schedule = Schedule(self.models["qat"], quantize_after=int(self.task.float_share * settings.steps))
        self.oscillations = Oscillations(largest_layer(self.models["qat"]))
        self._codes = self._qat_codes()

    def run(self, every: int = 20, until: int | None = None) -> Iterator[StepRecord]:
        """Train to step `until` (default: the end) and yield a record every `every` steps and at the last.

        Raises:
            TrainingDiverged: a training loss is no longer finite.
        """
        last = self.settings.steps if until is None else min(until, self.settings.steps)
        while self.step < last:
            self._optimize()
            if self.step % every == 0 or self.step == last:
                yield self.record()

    def record(self) -> StepRecord:
        """The three models as they are now; PTQ is the FP32 model of this moment, crushed."""
        fix_threads()
        self._crush()
        codes = self._qat_codes()
        flips = int((codes != self._codes).sum())
        self._codes = codes
        metrics: dict[str, dict[str, float]] = {}
        curves = {}
        for name, model in self.models.items():
            values, curve = self.task.measure(model.eval())
            model.train()
            for metric, value in values.items():
                metrics.setdefault(metric, {})[name] = value
            if curve:
                curves[name] = curve
        weights = look(self.models["qat"], self.oscillations)
        return StepRecord(self.step, self.settings.steps, metrics, curves, flips, codes.numel(), weights)

    def converted(self) -> nn.Module:
        """The QAT model on its grid, on the CPU: what is exported."""
        return convert(self.models["qat"]).cpu()

    def snapshot(self) -> dict[str, Any]:
        """All that a later `restore` needs, as numbers and CPU tensors of its own."""
        state = {
            "settings": self.settings,
            "step": self.step,
            "codes": self._codes,
            "oscillations": self.oscillations.state_dict(),
            "models": {name: self.models[name].state_dict() for name in self.optimizers},
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
        }
        copied = copy_tensors(state)
        assert isinstance(copied, dict)
        return copied

    @classmethod
    def restore(cls, snapshot: dict[str, Any], device: str | None = None) -> "Experiment":
        """The experiment as it was when `snapshot` was taken."""
        experiment = copy.deepcopy(_at_step_0(snapshot["settings"], device))
        snapshot = copy_tensors(snapshot)
        experiment.step = experiment.schedule.steps = snapshot["step"]
        experiment._codes = snapshot["codes"].to(experiment.device)
        experiment.oscillations.load_state_dict(snapshot["oscillations"])
        for name, optimizer in experiment.optimizers.items():
            experiment.models[name].load_state_dict(snapshot["models"][name])
            optimizer.load_state_dict(snapshot["optimizers"][name])
        return experiment

    def _optimize(self) -> None:
        """One optimizer step of both networks."""
        fix_threads()
        rate = self.settings.learning_rate * (1 + math.cos(math.pi * self.step / self.settings.steps)) / 2
        losses = {}
        for name, optimizer in self.optimizers.items():
            optimizer.param_groups[0]["lr"] = rate
            optimizer.zero_grad()
            loss = self.task.loss(self.models[name], self.step)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses[name] = loss
        self.step += 1
        self.schedule.step()
        self.oscillations.step()
        for name, loss in losses.items():
            if not math.isfinite(value := loss.item()):
                raise TrainingDiverged(
                    f"training stopped at step {self.step}: the {name.upper()} loss is {value}; "
                    f"try a learning rate below {self.settings.learning_rate:g}"
                )

    def _crush(self) -> None:
        """Naive PTQ: the FP32 weights of this moment, rounded without training."""
        self.models["ptq"].load_state_dict(self.models["fp32"].state_dict())
        if self.settings.activation_bits is not None:
            calibrate(self.models["ptq"], [self.task.x])

    def _qat_codes(self) -> Tensor:
        codes = [
            quantizer.codes(weight).flatten()
            for _, layer in quantized_layers(self.models["qat"])
            for _, weight, quantizer in layer.quantized_weights()
        ]
        return torch.cat(codes)


@lru_cache(maxsize=32)
def _at_step_0(settings: Settings, device: str | None) -> Experiment:
    """Remembered, because the search for the best first scales takes longer than 20 steps; copy before you train."""
    return Experiment(settings, device)


def copy_tensors(value: Any) -> Any:
    """The same dict of dicts with CPU tensors of its own."""
    if isinstance(value, Tensor):
        return value.detach().cpu().clone()
    if isinstance(value, dict):
        return {key: copy_tensors(item) for key, item in value.items()}
    return value
