"""What the experiment is about: a task gives the network, the batches, the loss and the measure of success."""

from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from app.lab.data import Digits, Sine
from app.lab.models import cnn, mlp

Curve = list[float]


class Task(Protocol):
    """One experiment's data on one device.

    Attributes:
        steps, learning_rate: how long and how fast it is trained unless told otherwise.
        float_share: the part of the steps that the QAT model trains in float before quantization sets in.
        x: all training inputs, also what activations are calibrated on.
        examples: inputs that show what the exported file must answer.
    """

    steps: int
    learning_rate: float
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
    float_share = 0.0

    def __init__(self, noise: float, seed: int, device: torch.device) -> None:
        self.data = Sine.sample(noise, seed).to(device)
        self.x = self.data.x
        self.examples = torch.cat([self.data.x, self.data.grid])

    def model(self, width: int, seed: int) -> nn.Module:
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
    float_share = 0.4

    def __init__(self, seed: int, device: torch.device) -> None:
        self.data, self.seed = Digits.load().to(device), seed
        self.x, self.examples = self.data.x, self.data.test_x

    def model(self, width: int, seed: int) -> nn.Module:
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


def make_task(name: str, noise: float, seed: int, device: torch.device) -> Task:
    """ "sine" or "digits"."""
    if name == "sine":
        return SineTask(noise, seed, device)
    return DigitsTask(seed, device)


TASKS: dict[str, type[SineTask] | type[DigitsTask]] = {"sine": SineTask, "digits": DigitsTask}
