"""What the experiment is about: a task gives the network, the batches, the loss and the measure of success."""

import math
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from app.lab.data import GRID_POINTS, Digits, Sine
from app.lab.models import Rescale, cnn, mlp
from app.lab.points import Points

Curve = list[float]


class Task(Protocol):
    """One experiment's data on one device.

    Attributes:
        steps, learning_rate: how long and how fast it is trained unless told otherwise.
        bits: of a weight unless told otherwise: so few that rounding afterwards fails, and in training does not.
        float_share: the part of the steps that the QAT model trains in float before quantization sets in.
        x: all training inputs, also what activations are calibrated on.
        examples: inputs that show what the exported file must answer.
    """

    steps: int
    learning_rate: float
    bits: int
    float_share: float
    x: Tensor
    examples: Tensor

    def model(self, width: int, seed: int) -> nn.Module:
        """A fresh FP32 network."""
        ...

    def loss(self, model: nn.Module, step: int) -> Tensor:
        """The training loss on the batch of that step."""
        ...

    def measure(self, model: nn.Module) -> tuple[dict[str, float], Curve]:
        """Metrics by name, and the fitted curve where there is one."""
        ...


class SineTask:
    """Fit 256 noisy points: full batch, mean squared error."""

    steps = 2000
    learning_rate = 1e-2
    bits = 4
    float_share = 0.0

    def __init__(self, noise: float, seed: int, device: torch.device) -> None:
        self.data = Sine.sample(noise, seed).to(device)
        self.x = self.data.x
        self.examples = torch.cat([self.data.x, self.data.grid])

    @staticmethod
    def model(width: int, seed: int) -> nn.Module:
        return mlp(width, seed)

    def loss(self, model: nn.Module, step: int) -> Tensor:
        return F.mse_loss(model(self.data.x), self.data.y)

    @torch.no_grad()
    def measure(self, model: nn.Module) -> tuple[dict[str, float], Curve]:
        fit, curve = model(self.examples).split([len(self.data.x), len(self.data.grid)])
        against = {"mse_clean": self.data.clean, "mse_train": self.data.y}
        return {name: F.mse_loss(fit, target).item() for name, target in against.items()}, curve.flatten().tolist()


class DigitsTask:
    """Classify 8 x 8 images: 25 epochs of batches of 64, cross-entropy, accuracy on images never seen."""

    batch = 64
    steps = 25 * 23
    learning_rate = 3e-3
    bits = 2
    float_share = 0.4

    def __init__(self, seed: int, device: torch.device) -> None:
        self.data, self.seed = Digits.load().to(device), seed
        self.x, self.examples = self.data.x, self.data.test_x

    @staticmethod
    def model(width: int, seed: int) -> nn.Module:
        return cnn(seed)

    def loss(self, model: nn.Module, step: int) -> Tensor:
        epoch, part = divmod(step, -(-len(self.x) // self.batch))
        order = torch.randperm(len(self.x), generator=torch.Generator().manual_seed(1000 * self.seed + epoch))
        rows = order[part * self.batch : (part + 1) * self.batch].to(self.x.device)
        return F.cross_entropy(model(self.x[rows]), self.data.y[rows])

    @torch.no_grad()
    def measure(self, model: nn.Module) -> tuple[dict[str, float], Curve]:
        loss = F.cross_entropy(model(self.x), self.data.y).item()
        return {"accuracy": self.accuracy(model(self.data.test_x)), "loss_train": loss}, []

    def accuracy(self, scores: Tensor) -> float:
        """The fraction of test images whose largest score (n, 10) is that of their digit."""
        return (scores.argmax(1) == self.data.test_y.to(scores.device)).float().mean().item()


class PointsTask:
    """Fit points of your own, in their own units: full batch, mean squared error over that of a constant.

    The network sees x from -pi to pi and answers with y from -1 to 1, as with the sine; the way there and back is
    part of it.
    """

    steps = 2000
    learning_rate = 1e-2
    bits = 4
    float_share = 0.0

    def __init__(self, points: Points, device: torch.device) -> None:
        self.x, self.y = (torch.tensor(column).unsqueeze(1).to(device) for column in zip(*points, strict=True))
        low, high = self.x.min().item(), self.x.max().item()
        self.grid = torch.linspace(low, high, GRID_POINTS).unsqueeze(1).to(device)
        self.examples = torch.cat([self.x, self.grid])
        self.scale_in = Rescale(-(high + low) / 2, 2 * math.pi / (high - low))
        low, high = self.y.min().item(), self.y.max().item()
        reach = (high - low) / 2
        if reach <= 1e-6 * max(abs(high), 1e-24):  # a constant, as far as float32 can tell
            reach = max(abs(high), 1e-24)
        self.scale_out = Rescale((high + low) / 2 / reach, reach)
        self.reach = reach

    def model(self, width: int, seed: int) -> nn.Module:
        return nn.Sequential(self.scale_in, *mlp(width, seed), self.scale_out)

    def loss(self, model: nn.Module, step: int) -> Tensor:
        return F.mse_loss(model(self.x) / self.reach, self.y / self.reach)

    @torch.no_grad()
    def measure(self, model: nn.Module) -> tuple[dict[str, float], Curve]:
        fit, curve = model(self.examples).split([len(self.x), len(self.grid)])
        return {"mse_train": F.mse_loss(fit, self.y).item()}, curve.flatten().tolist()


def make_task(name: str, noise: float, seed: int, device: torch.device, points: Points = ()) -> Task:
    """One of TASKS."""
    if name == "sine":
        return SineTask(noise, seed, device)
    if name == "points":
        return PointsTask(points, device)
    return DigitsTask(seed, device)


TASKS: dict[str, type[SineTask] | type[DigitsTask] | type[PointsTask]] = {
    "sine": SineTask,
    "digits": DigitsTask,
    "points": PointsTask,
}
