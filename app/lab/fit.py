"""Fit the sine three times, one step record after another.

`Experiment.run()` is a generator: the page, the terminal and the tests all consume it. Between two
records nothing runs; `snapshot()` and `restore()` carry the work across a pause.
"""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from app.lab.data import Sine
from app.lab.models import mlp
from qat_core import QATConfig, QuantSpec, convert, prepare
from qat_core.prepare import quantized_layers

MODELS = ("fp32", "ptq", "qat")


class TrainingDiverged(RuntimeError):
    """A loss became NaN or infinite; the message says which, when and what to try."""


@dataclass(frozen=True)
class Settings:
    """Everything that decides the outcome of a run.

    Raises:
        ValueError: a value is out of range; the message names it and what was expected.
    """

    bits: float = 4
    granularity: str = "per_tensor"
    scale: str = "minmax"
    seed: int = 0
    noise: float = 0.1
    steps: int = 2000
    width: int = 64
    learning_rate: float = 1e-2

    def __post_init__(self) -> None:
        _ = self.config
        for name, low, high in (("seed", 0, 2**31 - 1), ("steps", 1, 1_000_000), ("width", 1, 4096)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise ValueError(f"{name}={value!r}; expected a whole number from {low} to {high}")
        if not (isinstance(self.noise, int | float) and 0 <= self.noise <= 10):
            raise ValueError(f"noise={self.noise!r}; expected a number from 0 to 10")
        if not (isinstance(self.learning_rate, int | float) and 0 < self.learning_rate < math.inf):
            raise ValueError(f"learning_rate={self.learning_rate!r}; expected a positive number")

    @property
    def config(self) -> QATConfig:
        """What `prepare` is given."""
        return QATConfig(weight=QuantSpec(bits=self.bits, granularity=self.granularity, scale=self.scale))  # type: ignore[arg-type]


@dataclass(frozen=True)
class StepRecord:
    """What the three models look like after `step` optimizer steps.

    Attributes:
        step, steps: how far the run is.
        mse_train: model -> mean squared error against the noisy points.
        mse_clean: model -> mean squared error against the sine without noise.
        curves: model -> its output on the 128 points of `Sine.grid`.
        flips: weight codes of the QAT model that changed since the record before.
        codes: how many weight codes the QAT model has.
    """

    step: int
    steps: int
    mse_train: dict[str, float]
    mse_clean: dict[str, float]
    curves: dict[str, list[float]]
    flips: int
    codes: int


class Experiment:
    """Two networks in training, FP32 and QAT, and the PTQ twin of the first.

    All start from the same weights and see the same data: full batch, Adam, cosine decay to 0.
    """

    def __init__(self, settings: Settings, device: str = "auto") -> None:
        self.settings = settings
        self.device = pick_device(device)
        self.data = Sine.sample(settings.noise, settings.seed).to(self.device)
        self.step = 0
        fp32 = mlp(settings.width, settings.seed).to(self.device)
        self.models = {
            "fp32": fp32,
            "ptq": prepare(fp32, settings.config),
            "qat": prepare(fp32, settings.config),
        }
        self.optimizers = {
            name: torch.optim.Adam(self.models[name].parameters(), lr=settings.learning_rate)
            for name in ("fp32", "qat")
        }
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
        self.models["ptq"].load_state_dict(self.models["fp32"].state_dict())
        codes = self._qat_codes()
        flips = int((codes != self._codes).sum())
        self._codes = codes
        points = torch.cat([self.data.x, self.data.grid])
        mse_train, mse_clean, curves = {}, {}, {}
        for name, model in self.models.items():
            with torch.no_grad():
                fit, curve = model(points).split([len(self.data.x), len(self.data.grid)])
            mse_train[name] = F.mse_loss(fit, self.data.y).item()
            mse_clean[name] = F.mse_loss(fit, self.data.clean).item()
            curves[name] = curve.flatten().tolist()
        return StepRecord(self.step, self.settings.steps, mse_train, mse_clean, curves, flips, codes.numel())

    def converted(self) -> nn.Module:
        """The QAT model on its grid, on the CPU: what is exported."""
        return convert(self.models["qat"]).cpu()

    def snapshot(self) -> dict[str, Any]:
        """All that a later `restore` needs, as numbers and CPU tensors of its own."""
        state = {
            "settings": asdict(self.settings),
            "step": self.step,
            "codes": self._codes,
            "models": {name: self.models[name].state_dict() for name in self.optimizers},
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
        }
        copied = _copy_tensors(state)
        assert isinstance(copied, dict)
        return copied

    @classmethod
    def restore(cls, snapshot: dict[str, Any], device: str = "auto") -> "Experiment":
        """The experiment as it was when `snapshot` was taken."""
        experiment = cls(Settings(**snapshot["settings"]), device)
        snapshot = _copy_tensors(snapshot)
        experiment.step = snapshot["step"]
        experiment._codes = snapshot["codes"].to(experiment.device)
        for name, optimizer in experiment.optimizers.items():
            experiment.models[name].load_state_dict(snapshot["models"][name])
            optimizer.load_state_dict(snapshot["optimizers"][name])
        return experiment

    def _optimize(self) -> None:
        """One optimizer step of both networks."""
        rate = self.settings.learning_rate * (1 + math.cos(math.pi * self.step / self.settings.steps)) / 2
        losses = {}
        for name, optimizer in self.optimizers.items():
            optimizer.param_groups[0]["lr"] = rate
            optimizer.zero_grad()
            loss = F.mse_loss(self.models[name](self.data.x), self.data.y)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses[name] = loss
        self.step += 1
        for name, loss in losses.items():
            if not math.isfinite(value := loss.item()):
                raise TrainingDiverged(
                    f"training stopped at step {self.step}: the {name.upper()} loss is {value}; "
                    f"try a learning rate below {self.settings.learning_rate:g}"
                )

    def _qat_codes(self) -> Tensor:
        layers = quantized_layers(self.models["qat"])
        return torch.cat([layer.weight_quantizer.codes(layer.weight).flatten() for _, layer in layers])


def pick_device(name: str) -> torch.device:
    """The named device, or with "auto" the best that is there: cuda, then mps, then cpu.

    Raises:
        ValueError: the name is unknown, or this machine has no such device.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(device for device, usable in there.items() if usable))
    if name not in there:
        raise ValueError(f"device={name!r}; expected auto, {', '.join(there)}")
    if not there[name]:
        raise ValueError(f"device={name!r} is not there; this machine has {', '.join(d for d in there if there[d])}")
    return torch.device(name)


def _copy_tensors(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().cpu().clone()
    if isinstance(value, dict):
        return {key: _copy_tensors(item) for key, item in value.items()}
    return value
