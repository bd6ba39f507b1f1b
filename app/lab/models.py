"""The network that fits the sine."""

import torch
from torch import nn


def mlp(width: int = 64, seed: int = 0) -> nn.Sequential:
    """1 -> width -> width -> 1 with ReLU; the same seed gives the same weights on every device."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(1, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))
