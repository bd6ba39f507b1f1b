"""The data: 256 noisy points of a sine, and 1,797 handwritten digits."""

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

POINTS = 256
GRID_POINTS = 128
TEST_DIGITS = 360


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


@dataclass(frozen=True)
class Digits:
    """The handwritten digits that scikit-learn ships, always split the same way.

    Attributes:
        x, y: 1,437 images (n, 1, 8, 8) from 0 to 1, and their digits (n,), to train on.
        test_x, test_y: 360 images and digits to test on.

    Source: Alpaydin and Kaynak 1998, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository.
    """

    x: Tensor
    y: Tensor
    test_x: Tensor
    test_y: Tensor

    @classmethod
    @functools.cache  # unpacking them takes longer than a training step; nobody writes to them
    def load(cls) -> "Digits":
        from sklearn.datasets import load_digits  # slow to import, and the sine does without

        images, digits = load_digits(return_X_y=True)
        x = torch.from_numpy(images).float().div(16).reshape(-1, 1, 8, 8)
        y = torch.from_numpy(digits).long()
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
        test, train = order[:TEST_DIGITS], order[TEST_DIGITS:]
        return cls(x[train], y[train], x[test], y[test])

    def to(self, device: torch.device) -> "Digits":
        return Digits(*(t.to(device) for t in (self.x, self.y, self.test_x, self.test_y)))
