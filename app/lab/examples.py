"""The data of the suite's tasks: curves, functions of several numbers, classes, sequences, tables."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from app.lab.data import Digits


@dataclass(frozen=True)
class Examples:
    """Inputs (n, ...) and answers to train on and to test on: numbers (n, 1), or classes (n,) as whole numbers."""

    x: Tensor
    y: Tensor
    test_x: Tensor
    test_y: Tensor


def curve(function: Callable[[Tensor], Tensor], noise: float, generator: Generator, points: int = 256) -> Examples:
    """A curve over [-1, 1], measured with noise."""
    x, test_x = (torch.linspace(-1, 1, n).unsqueeze(1) for n in (points, 1000))
    return Examples(x, function(x) + noise * torch.randn(x.shape, generator=generator), test_x, function(test_x))


def cloud(
    function: Callable[[Tensor], Tensor], draw: Callable[[int, Generator], Tensor], noise: float, generator: Generator
) -> Examples:
    """A function of several numbers, measured with noise at points drawn at random."""
    x, test_x = draw(800, generator), draw(2000, generator)
    y = function(x)
    return Examples(x, y + noise * torch.randn(y.shape, generator=generator), test_x, function(test_x))


def square(features: int, n: int, generator: Generator) -> Tensor:
    return 2 * torch.rand(n, features, generator=generator) - 1


def heavy_tails(features: int, n: int, generator: Generator) -> Tensor:
    """Student's t with 3 degrees of freedom: a few inputs lie ten times as far out as most."""
    normal = torch.randn(n, features, 4, generator=generator)
    return normal[..., 0] / normal[..., 1:].square().mean(-1).sqrt() / 2


def waves(x: Tensor) -> Tensor:
    return 0.6 * torch.sin(5 * x) + 0.4 * torch.cos(11 * x + 1)


def staircase(x: Tensor) -> Tensor:
    return (2.5 * x).floor() / 2.5 + (x > 0.3).float()


def chirp(x: Tensor) -> Tensor:
    return torch.sin(3 * (x + 1.2) ** 2.5)


def friedman(x: Tensor) -> Tensor:
    """Friedman 1991, "Multivariate Adaptive Regression Splines", over 5."""
    a, b, c, d, e = ((x + 1) / 2).unsqueeze(-1).unbind(1)
    return 2 * torch.sin(math.pi * a * b) + 4 * (c - 0.5) ** 2 + 2 * d + e - 2.8


def ridges(x: Tensor) -> Tensor:
    a, b, c, d = x.unsqueeze(-1).unbind(1)
    return torch.tanh(a - b) + 0.5 * torch.sin(c) * torch.tanh(d)


def hills(x: Tensor) -> Tensor:
    a, b = x.unsqueeze(-1).unbind(1)
    return torch.sin(4 * a) * torch.cos(3 * b) + torch.exp(-8 * ((a - 0.4) ** 2 + (b + 0.3) ** 2))


def spirals(generator: Generator) -> Examples:
    """Three arms."""

    def draw(n: int) -> tuple[Tensor, Tensor]:
        arm = torch.randint(3, (n,), generator=generator)
        radius = torch.rand(n, generator=generator).sqrt()
        angle = 4 * radius + arm * (2 * math.pi / 3) + 0.15 * torch.randn(n, generator=generator)
        return torch.stack([radius * angle.cos(), radius * angle.sin()], 1), arm

    return Examples(*draw(600), *draw(2000))


def checkerboard(generator: Generator) -> Examples:
    def draw(n: int) -> tuple[Tensor, Tensor]:
        x = square(2, n, generator)
        return x, (2 * x + 2).floor().sum(1).long() % 2

    return Examples(*draw(1000), *draw(2000))


def adding(generator: Generator) -> Examples:
    """The sum of two marked numbers of a sequence: Hochreiter and Schmidhuber 1997, "Long Short-Term Memory"."""

    def draw(n: int) -> tuple[Tensor, Tensor]:
        values = square(12, n, generator)
        marked = torch.rand(n, 12, generator=generator).argsort(1) < 2
        return torch.stack([values, marked.float()], 2), (values * marked).sum(1, keepdim=True)

    return Examples(*draw(1000), *draw(2000))


def largest(generator: Generator) -> Examples:
    """In which quarter of a sequence lies its largest number?"""

    def draw(n: int) -> tuple[Tensor, Tensor]:
        x = torch.randn(n, 12, generator=generator)
        return x.unsqueeze(2), x.argmax(1) // 3

    return Examples(*draw(1500), *draw(2000))


def pointer(generator: Generator) -> Examples:
    """The token at the place that the first token names."""

    def draw(n: int) -> tuple[Tensor, Tensor]:
        x = torch.randint(8, (n, 9), generator=generator)
        return x, x.gather(1, x[:, :1] + 1).squeeze(1)

    return Examples(*draw(4000), *draw(2000))


def shipped(name: str, generator: Generator) -> Examples:
    """A table that scikit-learn ships, standardized, a third of it to test on."""
    from sklearn import datasets  # slow to import, and most tasks do without

    features, classes = getattr(datasets, f"load_{name}")(return_X_y=True)
    order = torch.randperm(len(features), generator=generator)
    x = torch.from_numpy(features).float()[order]
    y = torch.from_numpy(classes).long()[order]
    rest = len(x) // 3
    x = (x - x[rest:].mean(0)) / x[rest:].std(0)
    return Examples(x[rest:], y[rest:], x[:rest], y[:rest])


def digits(generator: Generator) -> Examples:
    data = Digits.load()
    return Examples(data.x, data.y, data.test_x, data.test_y)
