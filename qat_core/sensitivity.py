"""Which layer is too fragile, and what each should get: one layer at a time, then a budget.

Source: Dong et al. 2020, "HAWQ-V2: Hessian Aware trace-Weighted Quantization of Neural Networks", section 3.2, with the
measured change of the metric in place of the Hessian's trace.
"""

import copy
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from torch import nn

from qat_core.plan import plan
from qat_core.prepare import prepare
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
    """

    name: str
    elements: int
    baseline: float
    metric: float
    by_bits: dict[float, float]
    config: QATConfig

    @property
    def damage(self) -> float:
        """How far the metric moved, whichever way is worse."""
        return abs(self.metric - self.baseline)

    def damage_at(self, bits: float) -> float:
        return abs(self.by_bits[bits] - self.baseline)

    def bytes_at(self, bits: float) -> int:
        """Bytes of the codes alone, packed without gaps."""
        return math.ceil(self.elements * bits / 8)


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
        One row a layer, in the order of the model.

    Raises:
        ValueError: nothing in the model can be quantized, or the metric is not a finite number.
    """
    config = config or QATConfig()
    layers = plan(model, config).quantized
    if not layers:
        prepare(model, config)
    baseline = _finite(evaluate(copy.deepcopy(model).eval()), "the FP32 model")
    rows: list[SensitivityRow] = []
    total = len(layers) * len({*bits, config.weight.bits})
    done = 0
    for layer in layers:
        assert layer.config is not None
        by_bits = {}
        for width in sorted({*bits, layer.config.weight.bits}):
            spec = replace(layer.config.weight, bits=width)
            one = prepare(model, _only(layer.name, QATConfig(spec))).eval()
            by_bits[width] = _finite(evaluate(one), f"layer {layer.name!r} at {width:g} bits")
            done += 1
            _show(done, total, layer.name, enabled=progress)
        elements = sum(math.prod(shape) for shape in layer.shapes)
        metric = by_bits[layer.config.weight.bits]
        rows.append(SensitivityRow(layer.name, elements, baseline, metric, by_bits, layer.config))
    return rows


def suggest(rows: Sequence[SensitivityRow], budget_bytes: int) -> QATConfig:
    """The mixed precision with the least expected damage whose codes fit into a budget.

    Every layer starts at its narrowest width. As long as the budget allows, the layer is widened whose expected damage
    falls most per byte; the damages of single layers are taken to add up.

    Args:
        rows: from `sensitivity`.
        budget_bytes: for the codes of all these layers.

    Returns:
        A QATConfig with an override for each layer.

    Raises:
        ValueError: not even the narrowest widths fit; the message says what they need.
    """
    if not rows:
        raise ValueError("suggest was given no rows; expected those of sensitivity(model, evaluate, config)")
    chosen = {row.name: min(row.by_bits) for row in rows}
    spent = sum(row.bytes_at(chosen[row.name]) for row in rows)
    if spent > budget_bytes:
        raise ValueError(f"budget_bytes={budget_bytes}; expected at least {spent}, what the narrowest widths need")
    while candidates := _affordable(rows, chosen, budget_bytes - spent):
        _, row, width = max(candidates, key=lambda candidate: candidate[0])
        spent += row.bytes_at(width) - row.bytes_at(chosen[row.name])
        chosen[row.name] = width
    overrides = {
        row.name or "*": replace(row.config, weight=replace(row.config.weight, bits=chosen[row.name]), overrides={})
        for row in rows
    }
    return QATConfig(weight=rows[0].config.weight, activation=rows[0].config.activation, overrides=overrides)


def _affordable(
    rows: Sequence[SensitivityRow], chosen: dict[str, float], left: int
) -> list[tuple[float, SensitivityRow, float]]:
    """(benefit per byte, layer, wider width) of every step that fits."""
    steps = []
    for row in rows:
        now = chosen[row.name]
        for width in row.by_bits:
            cost = row.bytes_at(width) - row.bytes_at(now)
            if width > now and cost <= left:
                steps.append(((row.damage_at(now) - row.damage_at(width)) / max(cost, 1), row, width))
    return steps


def _only(name: str, config: QATConfig) -> QATConfig:
    """That config for one layer, float for all others."""
    return QATConfig(overrides={_literal(name): config, "*": None}) if name else config


def _literal(name: str) -> str:
    """A glob that matches this name alone."""
    return name.replace("[", "[[]")


def _finite(metric: float, what: str) -> float:
    metric = float(metric)
    if not math.isfinite(metric):
        raise ValueError(f"evaluate gave {metric} for {what}; expected a finite number")
    return metric


def _show(done: int, total: int, name: str, enabled: bool) -> None:
    if enabled and sys.stderr.isatty():
        bar = "#" * (30 * done // total)
        end = "\n" if done == total else ""
        print(f"\rsensitivity [{bar:<30}] {done}/{total} {name:<40.40}", end=end, file=sys.stderr, flush=True)
