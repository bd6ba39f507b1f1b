"""How latent weights lie on their grid, how restless their codes are, and a scale that does not fit, on purpose."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from qat_core import FakeQuantize, Oscillations, QuantLayer
from qat_core.affine import from_groups, to_groups
from qat_core.layers import quantized_layers
from qat_core.lsq import LearnedScale
from qat_core.source import Source, Take, whole

BINS = 160  # over the whole grid; at 8 bits a code has one of its own
MAP_SIDE = 64  # cells; larger matrices are shown in blocks


@dataclass(frozen=True)
class WeightRecord:
    """The quantized weights of a model at one step; the histogram and the map are of its largest layer.

    Attributes:
        quant_min, quant_max: the outermost codes of the grid.
        bins_per_code: bins of the histogram from one code to the next.
        histogram: how many latent weights lie in each bin of w / scale, from quant_min - 1.5 to quant_max + 1.5;
            weights further out are in the outermost bins.
        codes_used: how many different codes occur in the largest layer.
        zeros: fraction of the largest layer's codes that stand for 0.
        clipped: fraction of all weights beyond the outermost level, where the estimator passes no gradient.
        gradient_norm: of the last step's gradient of all latent weights; None before the first step.
        oscillating: fraction of the largest layer whose codes flip back more often than the threshold of
            `Oscillations`.
        map_shape, frequency: how often each code of the largest layer flips back, per step, as rows of bytes from
            0 (never) to 255 (every step); the liveliest of its block where the matrix is larger than the map.
    """

    quant_min: int
    quant_max: int
    bins_per_code: int
    histogram: tuple[int, ...]
    codes_used: int
    zeros: float
    clipped: float
    gradient_norm: float | None
    oscillating: float
    map_shape: tuple[int, int]
    frequency: bytes


@torch.no_grad()
def look(model: nn.Module, oscillations: Oscillations) -> WeightRecord:
    """
    Args:
        model: prepared; the gradients of its last step may still be there.
        oscillations: of its `largest_layer`.
    """
    weights = [triple[1:] for _, layer in quantized_layers(model) for triple in layer.quantized_weights()]
    (_, weight, quantizer) = largest_layer(model).quantized_weights()[0]
    spec = quantizer.spec
    codes = quantizer.codes(weight)
    low, high = spec.quant_min - 1.5, spec.quant_max + 1.5
    bins_per_code = max(1, BINS // spec.levels)
    counts = positions(weight, quantizer).clamp(low, high).histc(bins_per_code * (spec.levels + 2), low, high)
    gradients = [w.grad.norm() for w, _ in weights if w.grad is not None]
    clipped = sum(int(_is_clipped(w, q).sum()) for w, q in weights) / sum(w.numel() for w, _ in weights)
    (frequency,) = (oscillations.frequency(name) for name in oscillations.weights)
    blocks = _liveliest(frequency)
    return WeightRecord(
        quant_min=spec.quant_min,
        quant_max=spec.quant_max,
        bins_per_code=bins_per_code,
        histogram=tuple(map(int, counts.tolist())),
        codes_used=int(torch.bincount(codes.flatten().int() - spec.quant_min).count_nonzero()),
        zeros=(codes == 0).float().mean().item(),
        clipped=clipped,
        gradient_norm=torch.stack(gradients).norm().item() if gradients else None,
        oscillating=(frequency > oscillations.threshold).float().mean().item(),
        map_shape=(blocks.shape[0], blocks.shape[1]),
        frequency=bytes((blocks * 255).round().to(torch.uint8).flatten().tolist()),
    )


def positions(weight: Tensor, quantizer: FakeQuantize) -> Tensor:
    """w / scale, of the weight's shape: where each weight lies, in codes, before it is rounded and clamped."""
    groups = to_groups(weight, quantizer.spec)
    scale, _ = quantizer.source.qparams(groups)
    return from_groups(groups / scale, weight.shape)


def largest_layer(model: nn.Module) -> QuantLayer:
    """The quantized layer with the most weights."""
    return max((layer for _, layer in quantized_layers(model)), key=lambda layer: layer.weight.numel())


def multiply_scales(model: nn.Module, factor: float) -> None:
    """Make every weight's scale `factor` times what its rule says; a learned scale only begins there."""
    for quantizer in _weight_quantizers(model):
        if isinstance(quantizer.source, LearnedScale):
            quantizer.source.initial = Multiplied(quantizer.source.initial, factor)
            quantizer.source.restart()
        else:
            quantizer.source = Multiplied(quantizer.source, factor)


class Multiplied(Source):
    """A source of scales, times a constant."""

    def __init__(self, source: Source, factor: float) -> None:
        super().__init__()
        self.source, self.factor = source, factor

    def qparams(self, x: Tensor, take: Take = whole) -> tuple[Tensor, Tensor | None]:
        scale, zero_point = self.source.qparams(x, take)
        return scale * self.factor, zero_point


def _weight_quantizers(model: nn.Module) -> Iterator[FakeQuantize]:
    for _, layer in quantized_layers(model):
        for _, _, quantizer in layer.quantized_weights():
            yield quantizer


def _is_clipped(weight: Tensor, quantizer: FakeQuantize) -> Tensor:
    codes = positions(weight, quantizer).round_()
    return (codes < quantizer.spec.quant_min) | (codes > quantizer.spec.quant_max)


def _liveliest(frequency: Tensor) -> Tensor:
    """The matrix (out, in), as the largest value of each block where a side is longer than MAP_SIDE."""
    rows = frequency.flatten(1)
    sides = (min(rows.shape[0], MAP_SIDE), min(rows.shape[1], MAP_SIDE))
    return nn.functional.adaptive_max_pool2d(rows[None], sides)[0]
