"""What errors on many tasks add up to: the geometric mean of error / float32's error, and how sure it is."""

import random
from collections.abc import Mapping, Sequence
from statistics import fmean, geometric_mean
from typing import NamedTuple

DRAWS = 1000
SMALLEST = 1e-9  # an error below it counts as this


class Ratio(NamedTuple):
    """A geometric mean, and the 95% of its bootstrap distribution."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.2f} ({self.low:.2f} to {self.high:.2f})"


def ratio(errors: Mapping[str, Sequence[float]], fp32: Mapping[str, Sequence[float]]) -> Ratio:
    """Over tasks, of the mean error over seeds divided by float32's.

    Each draw takes other seeds of every task, for both alike; the tasks stay.

    Args:
        errors, fp32: for each task the errors of its seeds, in the same order.

    Source: Efron 1979, "Bootstrap Methods: Another Look at the Jackknife".
    """
    draw = random.Random(0)

    def once() -> float:
        chosen = {task: draw.choices(range(len(values)), k=len(values)) for task, values in errors.items()}
        return mean_ratio(*({task: [of[task][s] for s in chosen[task]] for task in chosen} for of in (errors, fp32)))

    draws = sorted(once() for _ in range(DRAWS))
    return Ratio(mean_ratio(errors, fp32), draws[DRAWS // 40], draws[-DRAWS // 40])


def mean_ratio(errors: Mapping[str, Sequence[float]], fp32: Mapping[str, Sequence[float]]) -> float:
    """The mean alone of what `ratio` finds, a thousand times sooner."""
    means = ((fmean(values), fmean(fp32[task])) for task, values in errors.items())
    return geometric_mean(max(mine, SMALLEST) / max(its, SMALLEST) for mine, its in means)
