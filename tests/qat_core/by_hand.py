"""A linear layer with quantized weights and inputs a second time, from the formulas, for training loops to agree with.

Rounding has the slope 1, and all other gradients are autograd's.
"""

from dataclasses import dataclass

import torch
from torch.nn import functional as F

MOMENTUM = 0.05  # of a range
OFF_TIES = 1 + 2**-12


def rounded(x):
    return x + (x.round() - x).detach()


def weight_on_grid(weight, bits=4):
    """Min-max, a scale each channel: (out, in) -> (out, in), scales (out, 1)."""
    scale = weight.detach().abs().amax(1, keepdim=True).clamp(min=2**-50) / (2 ** (bits - 1) - 1)
    return rounded(weight / scale) * scale, scale


@dataclass
class Range:
    """Of 8-bit activations with a zero point."""

    low: float = 0.0
    high: float = 0.0
    empty: bool = True

    def move(self, x):
        low, high = x.detach().min().item(), x.detach().max().item()
        share = 1.0 if self.empty else MOMENTUM
        self.low, self.high, self.empty = (
            self.low + share * (low - self.low),
            self.high + share * (high - self.high),
            False,
        )

    def on_grid(self, x):
        """x and its scale."""
        low, high = torch.tensor(min(self.low, 0.0)), torch.tensor(max(self.high, 0.0))
        scale = (high - low) / 255
        zero_point, scale = (-low / scale).round(), scale * OFF_TIES
        codes = (rounded(x / scale) + zero_point).clamp(0, 255)
        return (codes - zero_point) * scale, scale


def linear(x, weight, bias, bits=4):
    """Input in float."""
    return F.linear(x, weight_on_grid(weight, bits)[0], bias)


def linear_of_codes(x, seen, weight, bias, bits=4):
    """Input on the grid of a range, and the bias in units of the product."""
    x, input_scale = seen.on_grid(x)
    weight, weight_scale = weight_on_grid(weight, bits)
    unit = input_scale * weight_scale.flatten()
    return F.linear(x, weight, rounded(bias / unit) * unit)
