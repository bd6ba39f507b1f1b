"""Pictures to keep, drawn with matplotlib. The page's own charts are SVG; see static/charts."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from app.lab.data import Sine
from app.lab.fit import Settings, StepRecord
from app.lab.ratios import Ratio

LOOKS = {"fp32": ("#2563eb", "-", "FP32"), "ptq": ("#b45309", "--", "naive PTQ"), "qat": ("#15803d", "-", "QAT")}


def comparison(settings: Settings, record: StepRecord, path: str | os.PathLike[str]) -> None:
    """The picture of the README: data, sine and the three fits, PTQ beside QAT on the same scale."""
    data = Sine.sample(settings.noise, settings.seed)
    figure = Figure(figsize=(10, 4), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for panel, name, rounded in zip(panels, ("ptq", "qat"), ("after", "in"), strict=True):
        panel.plot(data.x, data.y, ".", color="#94a3b8", markersize=3, label="noisy points")
        for model in ("fp32", name):
            colour, style, label = LOOKS[model]
            panel.plot(data.grid, record.curves[model], style, color=colour, linewidth=2, label=label)
        panel.set_title(
            f"{LOOKS[name][2]}: {settings.bits:g} bits {rounded} training, MSE {record.mse_clean[name]:.4f}"
        )
        panel.set_ylim(-2.2, 2.2)
        panel.set_xlabel("x")
        panel.spines[["top", "right"]].set_visible(False)
        panel.legend(frameon=False, loc="lower left", ncols=3)
    panels[0].set_ylabel("y")
    figure.savefig(Path(path), dpi=144)


def fits(settings: Settings, record: StepRecord, path: str | os.PathLike[str]) -> None:
    """Points of one's own and the three fits, over the range of x that the points have."""
    xs, ys = zip(*settings.points, strict=True)
    figure = Figure(figsize=(8, 4), layout="constrained")
    panel = figure.subplots()
    panel.plot(xs, ys, ".", color="#94a3b8", markersize=3, label="your points")
    for model, (colour, style, label) in LOOKS.items():
        curve = record.curves[model]
        error = record.metrics["mse_train"][model] ** 0.5
        grid = [min(xs) + (max(xs) - min(xs)) * i / (len(curve) - 1) for i in range(len(curve))]
        panel.plot(grid, curve, style, color=colour, linewidth=2, label=f"{label}, typical error {error:.3g}")
    reach = (max(ys) - min(ys)) / 2 or 1.0
    panel.set_ylim(min(ys) - reach, max(ys) + reach)
    panel.set_title(f"{settings.bits:g} bits a weight")
    panel.set_xlabel("x")
    panel.set_ylabel("y")
    panel.spines[["top", "right"]].set_visible(False)
    panel.legend(frameon=False)
    figure.savefig(Path(path), dpi=144)


def pareto(found: Mapping[tuple[Any, ...], tuple[Ratio, float]], path: str | os.PathLike[str]) -> None:
    """Error against bytes, both as multiples of float32's, a point for each recipe with its interval.

    Args:
        found: (bits, granularity, scale, activation bits) -> error and bytes; recipes that differ in bits alone are
            joined by a line.
    """
    figure = Figure(figsize=(8, 5), layout="constrained")
    panel = figure.subplots()
    families: dict[str, list[tuple[float, Ratio]]] = {}
    for (bits, granularity, scale, activation), (error, size) in found.items():
        name = f"{scale}, {granularity}" + (f", {activation:g}-bit activations" if activation else "")
        families.setdefault("float32" if bits == 32 else name, []).append((size, error))
    for name, points in families.items():
        sizes, errors = zip(*sorted(points), strict=True)
        apart = [[error.mean - error.low for error in errors], [error.high - error.mean for error in errors]]
        panel.errorbar(sizes, [error.mean for error in errors], yerr=apart, marker="o", capsize=3, label=name)
    panel.set_xscale("log", base=2)
    panel.set_yscale("log")
    panel.set_xlabel("bytes / float32's")
    panel.set_ylabel("error / float32's, geometric mean over tasks")
    panel.spines[["top", "right"]].set_visible(False)
    panel.legend(frameon=False)
    figure.savefig(Path(path), dpi=144)
