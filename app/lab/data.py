"""The task: 256 noisy points of a sine."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

POINTS = 256
GRID_POINTS = 128


@dataclass(frozen=True)
class Sine:
    """Points of sin(2x) on [-pi, pi]; every tensor is (n, 1), float32.

    Attributes:
        x: where the curve was measured, evenly spaced.
        y: what was measured: the curve plus noise.
        clean: the curve itself.
        grid: where fitted curves are drawn.
    """

    x: Tensor
    y: Tensor
    clean: Tensor
    grid: Tensor

    @classmethod
    def sample(cls, noise: float = 0.1, seed: int = 0) -> "Sine":
        """Measure the curve with Gaussian noise of standard deviation `noise`."""
        generator = torch.Generator().manual_seed(seed)
        x = torch.linspace(-math.pi, math.pi, POINTS).unsqueeze(1)
        clean = torch.sin(2 * x)
        y = clean + noise * torch.randn(x.shape, generator=generator)
        grid = torch.linspace(-math.pi, math.pi, GRID_POINTS).unsqueeze(1)
        return cls(x, y, clean, grid)

    def to(self, device: torch.device) -> "Sine":
        return Sine(*(t.to(device) for t in (self.x, self.y, self.clean, self.grid)))
