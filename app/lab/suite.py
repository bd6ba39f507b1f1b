"""Small tasks of many kinds, each trained in a second or two: a recipe that wins on one curve may be tuned to it.

Half of them are to choose recipes on; on the others what was chosen is only looked at. An error is the mean squared
distance to the truth on inputs never trained on: of a curve to the curve without noise, of classes from the
probabilities to the class (Brier 1950), which is finer than a count of mistakes and never 0.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Adam, AdamW, Optimizer

from app.lab.examples import (
    Examples,
    adding,
    checkerboard,
    chirp,
    cloud,
    curve,
    digits,
    friedman,
    heavy_tails,
    hills,
    largest,
    pointer,
    ridges,
    shipped,
    spirals,
    square,
    staircase,
    waves,
)


@dataclass(frozen=True)
class Trial:
    """One task of the suite.

    Attributes:
        choosing: is it there to choose recipes on?
        examples: data of a seed.
        model: a fresh network, from torch's own generator.
        optimizer: of a network's parameters.
        steps: of training, all with a cosine decay to 0 of the learning rate, or without.
        batch: examples of a step; None is all.
        trained: float steps before, from whose weights all start.
    """

    choosing: bool
    examples: Callable[[Generator], Examples]
    model: Callable[[], nn.Module]
    optimizer: Callable[..., Optimizer]
    steps: int
    batch: int | None = None
    trained: int = 0
    decay: bool = True

    def shortened(self, most: int) -> "Trial":
        """The same with so many steps at most, before and after."""
        return replace(self, steps=min(self.steps, most), trained=min(self.trained, most))

    def start(self, seed: int) -> tuple[nn.Module, Examples]:
        """The float network that everybody starts from, and the data."""
        data = self.examples(Generator().manual_seed(seed))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = self.model()
        if self.trained:
            before = replace(self, steps=self.trained, trained=0)
            before.fit(model, self.optimizer(model.parameters()), data, seed + 1000)
        return model, data

    def fit(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        data: Examples,
        seed: int,
        after_step: Callable[[], object] = lambda: None,
    ) -> None:
        """Train in place, on the same batches whatever the model."""
        rates = [group["lr"] for group in optimizer.param_groups]
        generator = Generator().manual_seed(seed)
        rows: Tensor | slice = slice(None)
        for step in range(self.steps):
            if self.batch:
                rows = torch.randint(len(data.x), (self.batch,), generator=generator)
            if self.decay:
                for group, rate in zip(optimizer.param_groups, rates, strict=True):
                    group["lr"] = rate * (1 + math.cos(math.pi * step / self.steps)) / 2
            optimizer.zero_grad()
            answers, truth = model(data.x[rows]), data.y[rows]
            loss = F.mse_loss(answers, truth) if truth.is_floating_point() else F.cross_entropy(answers, truth)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            after_step()


@torch.no_grad()
def error(model: nn.Module, data: Examples) -> float:
    """On the inputs to test on, in evaluation.

    Raises:
        FloatingPointError: an answer is not finite.
    """
    answers = model.eval()(data.test_x)
    truth = data.test_y
    if not truth.is_floating_point():
        answers, truth = answers.softmax(1), F.one_hot(truth, answers.shape[1]).float()
    found: float = (answers - truth).square().sum(1).mean().item()
    if not math.isfinite(found):
        raise FloatingPointError(f"diverged: the error is {found}")
    return found


def mlp(*widths: int, activation: type[nn.Module]) -> nn.Module:
    pairs = itertools.pairwise(widths)
    layers = [layer for before, after in pairs for layer in (nn.Linear(before, after), activation())]
    return nn.Sequential(*layers[:-1])


class Recurrent(nn.Module):
    """(n, length, features) -> (n, out), read off the last state."""

    def __init__(self, kind: type[nn.GRU] | type[nn.LSTM], features: int, hidden: int, out: int) -> None:
        super().__init__()
        self.cells, self.head = kind(features, hidden, batch_first=True), nn.Linear(hidden, out)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.cells(x)[0][:, -1])
        return y


class Attention(nn.Module):
    """Tokens (n, length) -> (n, tokens): an encoder layer, read off the first place."""

    def __init__(self, tokens: int, length: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(tokens, width)
        self.places = nn.Parameter(torch.randn(length, width))
        self.encoder = nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.0, batch_first=True)
        self.head = nn.Linear(width, tokens)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.encoder(self.embedding(x) + self.places)[:, 0])
        return y


def small_cnn() -> nn.Module:
    """(n, 1, 8, 8) -> (n, 10)"""
    body = (nn.Conv2d(1, 12, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(12, 24, 3, padding=1), nn.ReLU())
    return nn.Sequential(*body, nn.Flatten(), nn.Linear(24 * 4 * 4, 10))


def _adam(rate: float) -> Callable[..., Optimizer]:
    return partial(Adam, lr=rate)


def _adamw(rate: float) -> Callable[..., Optimizer]:
    return partial(AdamW, lr=rate)


def _momentum(rate: float) -> Callable[..., Optimizer]:
    return partial(SGD, lr=rate, momentum=0.9)


_tanh, _relu, _gelu = (partial(mlp, activation=kind) for kind in (nn.Tanh, nn.ReLU, nn.GELU))
SUITE: dict[str, Trial] = {
    "waves": Trial(True, partial(curve, waves, 0.05), partial(_tanh, 1, 48, 48, 1), _adam(1e-2), 1200),
    "staircase": Trial(True, partial(curve, staircase, 0.1), partial(_relu, 1, 64, 64, 1), _adamw(5e-3), 1000),
    "friedman": Trial(
        True, partial(cloud, friedman, partial(square, 5), 0.2), partial(_gelu, 5, 128, 128, 1), _adamw(3e-3), 600, 64
    ),
    "spirals": Trial(True, spirals, partial(_tanh, 2, 32, 32, 3), _momentum(0.1), 1000, 64),
    "adding": Trial(True, adding, partial(Recurrent, nn.GRU, 2, 32, 1), _adam(1e-2), 400, 64),
    "breast cancer": Trial(
        True, partial(shipped, "breast_cancer"), partial(_relu, 30, 64, 2), _adam(1e-3), 300, 32, decay=False
    ),
    "digits": Trial(True, digits, small_cnn, _adamw(3e-3), 200, 64, trained=200),
    "chirp": Trial(False, partial(curve, chirp, 0.1), partial(_relu, 1, 96, 96, 1), _adam(5e-3), 1000),
    "ridges": Trial(
        False,
        partial(cloud, ridges, partial(heavy_tails, 4), 0.1),
        partial(_relu, 4, 64, 64, 1),
        _momentum(0.02),
        800,
        128,
    ),
    "hills": Trial(
        False, partial(cloud, hills, partial(square, 2), 0.05), partial(_gelu, 2, 256, 256, 1), _adamw(3e-3), 500, 64
    ),
    "checkerboard": Trial(False, checkerboard, partial(_tanh, 2, 64, 64, 2), _adam(3e-3), 1000, 128, decay=False),
    "wine": Trial(False, partial(shipped, "wine"), partial(_gelu, 13, 32, 3), _adamw(1e-3), 200, 32, trained=200),
    "largest": Trial(False, largest, partial(Recurrent, nn.LSTM, 1, 32, 4), _adam(1e-2), 400, 64),
    "pointer": Trial(False, pointer, partial(Attention, 8, 9, 32), _adamw(3e-3), 400, 64),
}
CHOOSING = tuple(name for name, trial in SUITE.items() if trial.choosing)
REPORTING = tuple(name for name, trial in SUITE.items() if not trial.choosing)
