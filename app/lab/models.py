"""The networks; the same seed gives the same weights on every device."""

import torch
from torch import Tensor, nn


def mlp(width: int = 64, seed: int = 0) -> nn.Sequential:
    """1 -> width -> width -> 1 with ReLU, for the sine."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(1, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))


class Rescale(nn.Module):
    """(x + shift) * factor: in and out of the units of somebody's own data."""

    shift: Tensor
    factor: Tensor

    def __init__(self, shift: float, factor: float) -> None:
        super().__init__()
        self.register_buffer("shift", torch.tensor(shift))
        self.register_buffer("factor", torch.tensor(factor))

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.shift) * self.factor


def cnn(seed: int = 0) -> nn.Sequential:
    """(n, 1, 8, 8) -> (n, 10) through 16, 32 and 32 channels, for the digits."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),  # (n, 16, 8, 8)
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),  # (n, 32, 4, 4)
            nn.Conv2d(32, 32, 3, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32 * 4 * 4, 10),
        )
