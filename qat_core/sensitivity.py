"""Which layer is too fragile, and what each should get: one layer at a time, then a budget.

Source: Dong et al. 2020, "HAWQ-V2: Hessian Aware trace-Weighted Quantization of Neural Networks", section 3.2 (the
Pareto frontier), with the measured change of the metric in place of the Hessian's trace.
"""

import math
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from torch import nn

from qat_core.plan import plan
from qat_core.planned import PlannedLayer
from qat_core.prepare import copied, prepare
from qat_core.spec import QATConfig


@dataclass(frozen=True)
class SensitivityRow:
    """What happens when only this layer is quantized.

    Attributes:
        name: of the layer.
        elements: how many weights it quantizes.
        baseline: the metric of the FP32 model.
        metric: the metric with this layer alone quantized as the config says.
        by_bits: width -> the metric with this layer alone quantized to that width.
        config: what applied to the layer.
        tied: names of the layers that share its weight, and so are quantized with it.
    """

    name: str
    elements: int
    baseline: float
    metric: float
    by_bits: dict[float, float]
    config: QATConfig
    tied: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """All layers that the row is about."""
        return (self.name, *self.tied)

    @property
    def damage(self) -> float:
        """How far the metric moved, whichever way is worse."""
        return abs(self.metric - self.baseline)

    def damage_at(self, bits: float) -> float:
        return abs(self.by_bits[bits] - self.baseline)

    def bytes_at(self, bits: float) -> int:
        """Bytes of the codes alone, packed without gaps."""
        return math.ceil(self.elements * bits / 8)


@dataclass(frozen=True)
class Mix:
    """A width for every layer.

    Attributes:
        bits: of each row, in the order of the rows.
        bytes: of the codes of all these layers, packed without gaps.
        damage: expected, the damages of single layers taken to add up.
    """

    bits: tuple[float, ...]
    bytes: int
    damage: float

    def config(self, rows: Sequence[SensitivityRow]) -> QATConfig:
        """For `prepare`: an override for each layer."""
        overrides = {
            _literal(name) or "*": replace(row.config, weight=replace(row.config.weight, bits=bits), overrides={})
            for row, bits in zip(rows, self.bits, strict=True)
            for name in row.names
        }
        return QATConfig(weight=rows[0].config.weight, activation=rows[0].config.activation, overrides=overrides)


def sensitivity(
    model: nn.Module,
    evaluate: Callable[[nn.Module], float],
    config: QATConfig | None = None,
    *,
    bits: Sequence[float] = (2, 3, 4, 8),
    progress: bool = True,
) -> list[SensitivityRow]:
    """The metric with one layer quantized at a time, the others in float.

    Args:
        model: trained, in float; it is left alone.
        evaluate: model -> metric, such as an accuracy or a loss; called once for each layer and width. Activations
            stay in float, so that it needs no calibration.
        config: how layers are quantized; its width is measured as well.
        bits: widths to measure, for `suggest`.
        progress: show a bar on stderr when that is a terminal.

    Returns:
        One row a layer, in the order of the model; one for all layers that share a weight.

    Raises:
        ValueError: nothing in the model can be quantized, or the metric is not a finite number.
    """
    rows = []
    for row, total in scan(model, evaluate, config, bits=bits):
        rows.append(row)
        _show(len(rows), total, row.name, enabled=progress)
    return rows


def scan(
    model: nn.Module,
    evaluate: Callable[[nn.Module], float],
    config: QATConfig | None = None,
    *,
    bits: Sequence[float] = (2, 3, 4, 8),
) -> Iterator[tuple[SensitivityRow, int]]:
    """`sensitivity`, layer by layer: each row as soon as it is measured, and how many there will be."""
    layers = plan(model, config).quantized
    if not layers:
        prepare(model, config)
    baseline = _finite(evaluate(copied(model).eval()), "the FP32 model")
    groups: dict[str, list[PlannedLayer]] = {}
    for layer in layers:
        groups.setdefault(layer.owner, []).append(layer)
    for layer, *others in groups.values():
        assert layer.config is not None
        names = (layer.name, *(other.name for other in others))
        by_bits = {}
        for width in sorted({*bits, layer.config.weight.bits}):
            spec = replace(layer.config.weight, bits=width)
            one = prepare(model, only(names, QATConfig(spec))).eval()
            by_bits[width] = _finite(evaluate(one), f"layer {layer.name!r} at {width:g} bits")
        elements = sum(math.prod(shape) for shape in layer.shapes)
        metric = by_bits[layer.config.weight.bits]
        yield SensitivityRow(layer.name, elements, baseline, metric, by_bits, layer.config, names[1:]), len(groups)


def only(names: Sequence[str], config: QATConfig) -> QATConfig:
    """That config for the layers of these names, float for all others."""
    return QATConfig(overrides={**{_literal(name): config for name in names}, "*": None}) if names[0] else config


def suggest(rows: Sequence[SensitivityRow], budget_bytes: int) -> QATConfig:
    """The mixed precision with the least expected damage whose codes fit into a budget.

    Args:
        rows: from `sensitivity`.
        budget_bytes: for the codes of all these layers.

    Returns:
        A QATConfig with an override for each layer: that of the last `Mix` of the `frontier` that fits.

    Raises:
        ValueError: not even the narrowest widths fit; the message says what they need.
    """
    mixes = frontier(rows)
    if mixes[0].bytes > budget_bytes:
        raise ValueError(f"budget_bytes={budget_bytes}; expected at least {mixes[0].bytes}, what the narrowest need")
    return [mix for mix in mixes if mix.bytes <= budget_bytes][-1].config(rows)


def frontier(rows: Sequence[SensitivityRow], most: int = 2048) -> list[Mix]:
    """Every mix that no other beats: whatever takes fewer bytes does more damage. Smallest first.

    Args:
        rows: from `sensitivity`.
        most: mixes kept after each layer, evenly spread over the bytes. Up to that many, which a dozen layers seldom
            reach, the result is exact.

    Raises:
        ValueError: there are no rows.
    """
    if not rows:
        raise ValueError("there are no rows; expected those of sensitivity(model, evaluate, config)")
    mixes = [Mix((), 0, 0.0)]
    for row in rows:
        mixes = _thinned(_undominated(_one_more(mixes, row)), most)
    return mixes


def _one_more(mixes: Sequence[Mix], row: SensitivityRow) -> list[Mix]:
    """Each mix with each width of one more layer."""
    return [
        Mix((*mix.bits, width), mix.bytes + row.bytes_at(width), mix.damage + row.damage_at(width))
        for mix in mixes
        for width in row.by_bits
    ]


def _undominated(mixes: Sequence[Mix]) -> list[Mix]:
    kept: list[Mix] = []
    for mix in sorted(mixes, key=lambda mix: (mix.bytes, mix.damage)):
        if not kept or mix.damage < kept[-1].damage:
            kept.append(mix)
    return kept


def _thinned(mixes: list[Mix], most: int) -> list[Mix]:
    """At most `most` + 1: the last, which does least damage, of every stretch of bytes, and the smallest."""
    if len(mixes) <= most:
        return mixes
    low, stretch = mixes[0].bytes, (mixes[-1].bytes - mixes[0].bytes) / most
    last = {math.ceil((mix.bytes - low) / stretch): mix for mix in mixes}
    return list(last.values())


def _literal(name: str) -> str:
    """A glob that matches this name alone."""
    return re.sub(r"([*?[])", r"[\1]", name)


def _finite(metric: float, what: str) -> float:
    try:
        found = float(metric)
    except (TypeError, ValueError, RuntimeError):  # of a tensor with several numbers
        found = math.nan
    if not math.isfinite(found):
        raise ValueError(f"evaluate gave {metric!r:.60} for {what}; expected a finite number")
    return found


def _show(done: int, total: int, name: str, enabled: bool) -> None:
    if enabled and sys.stderr.isatty():
        bar = "#" * (30 * done // total)
        end = "\n" if done == total else ""
        print(f"\rsensitivity [{bar:<30}] {done}/{total} {name:<40.40}", end=end, file=sys.stderr, flush=True)
