"""What every contender trains, and how: the notebook's sine, on torch alone so that any environment can run it.

Data, first weights, optimizer and schedule are those of `app.lab.fit`; only the quantizer differs between contenders.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

from app.lab.data import Sine

LEARNING_RATE = 1e-2
GRANULARITIES = ("per_tensor", "per_channel")
BITS = (1.58, 2, 3, 4)


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    Attributes:
        steps: optimizer steps of one training run.
        seeds: training runs of one figure, seeded 0, 1, ...
        pairs: timed pairs of blocks of one figure.
        networks: drawn at random for the parity table.
        outputs: asked of each of them.
        starts: new processes in which an export is timed.
        exports: further ones that are timed in each.
        rounds: how often each file is timed for the latency table.
        files: of the table of runtimes.
        sizes: millions of parameters of the models whose export is watched.
    """

    steps: int = 2000
    seeds: int = 5
    pairs: int = 61
    networks: int = 264
    outputs: int = 16_000
    starts: int = 5
    exports: int = 5
    rounds: int = 61
    sizes: tuple[int, ...] = (10, 100, 500, 1000)
    files: int = 86


QUICK = Effort(steps=20, seeds=1, pairs=3, networks=5, outputs=500, starts=1, exports=1, rounds=5, files=6, sizes=(1,))


def adam(parameters: ParamsT) -> Optimizer:
    """The optimizer of the sine; a contender may bring one around it."""
    return torch.optim.Adam(parameters, lr=LEARNING_RATE)


def train_step(model: nn.Module, optimizer: Optimizer, after_step: Callable[[], object], x: Tensor, y: Tensor) -> None:
    """The step that is trained with and the step that is timed."""
    optimizer.zero_grad()
    F.mse_loss(model(x), y).backward()
    optimizer.step()
    after_step()


def fit(model: nn.Module, optimizer: Optimizer, after_step: Callable[[], object], data: Sine, steps: int) -> float:
    """Train on the noisy points with a cosine decay to 0; returns the mean squared error against the clean sine.

    Raises:
        FloatingPointError: the model diverged.
    """
    for step in range(steps):
        rate = LEARNING_RATE * (1 + math.cos(math.pi * step / steps)) / 2
        for group in optimizer.param_groups:
            group["lr"] = rate
        train_step(model, optimizer, after_step, data.x, data.y)
    with torch.no_grad():
        mse_clean = F.mse_loss(model(data.x), data.clean).item()
    if not math.isfinite(mse_clean):
        raise FloatingPointError(f"diverged: the error is {mse_clean}")
    return mse_clean


def bytes_of(model: nn.Module) -> int:
    """Bytes of the parameters and buffers, each tensor once."""
    return sum(t.numel() * t.element_size() for t in [*model.parameters(), *model.buffers()])
