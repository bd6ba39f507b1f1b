"""`python -m app.lab.rates FILE`: what the rate at which a scale learns is good for, for the chapter on the STE.

Scales begin where they should, or a few octaves beside it. Only tasks that are there to choose recipes on are trained,
those with Adam: there the rate of a scale is its learning rate beside that of the weights, and an optimizer with two
groups of parameters has it.
"""

import json
import sys
from collections.abc import Iterable, Sequence

from torch import nn
from torch.optim import Optimizer

from app.lab.pretrained import write
from app.lab.ratios import Ratio, ratio
from app.lab.suite import SUITE, Trial, error
from app.lab.threads import fix_threads
from app.lab.weights import multiply_scales
from qat_core import QATConfig, QuantSpec, prepare
from qat_core.lsq import RATE

TASKS = ("staircase", "friedman", "breast cancer")
SEEDS = 2
BITS = 4
RATES = (0.5, RATE, 8.0)
STARTS = (-4, -3, -2, -1, 0, 1, 2, 3)  # octaves from where scales begin by themselves


def main(argv: Sequence[str] | None = None) -> int:
    """Train with every rate from every start; the file appears when it is whole."""
    return write("rates", lambda _: to_json(), argv)


def to_json(tasks: Sequence[str] = TASKS, seeds: int = SEEDS, starts: Sequence[float] = STARTS) -> str:
    """Error / float32's for each rate and start: the geometric mean over tasks, and 95% of its bootstrap."""
    fix_threads()
    fp32 = {task: [_error(SUITE[task], seed) for seed in range(seeds)] for task in tasks}
    found = [[ratio(_errors(tasks, seeds, rate, start), fp32) for start in starts] for rate in RATES]
    kept = {
        "tasks": list(tasks),
        "seeds": seeds,
        "bits": BITS,
        "starts": list(starts),
        "rates": list(RATES),
        "chosen": RATE,
        "errors": [[_digits(of_start) for of_start in of_rate] for of_rate in found],
    }
    return json.dumps(kept, separators=(",", ":")) + "\n"


def _errors(tasks: Iterable[str], seeds: int, rate: float, start: float) -> dict[str, list[float]]:
    return {task: [_error(SUITE[task], seed, rate, start) for seed in range(seeds)] for task in tasks}


def _error(trial: Trial, seed: int, rate: float = RATE, start: float | None = None) -> float:
    """Of QAT, or of float32 where there is no scale to start with."""
    model, data = trial.start(seed)
    if start is not None:
        model = prepare(model, QATConfig(QuantSpec(BITS, scale="learned")))
        multiply_scales(model, 2.0**start)
    trial.fit(model.train(), with_rate(trial, model, rate), data, seed)
    return error(model, data)


def with_rate(trial: Trial, model: nn.Module, rate: float) -> Optimizer:
    """The task's optimizer, in which scales learn `rate` times as fast as weights, where `RATE` times is the rule."""
    parameters = dict(model.named_parameters())
    scales = [p for name, p in parameters.items() if name.endswith("log2_growth")]
    others = [p for name, p in parameters.items() if not name.endswith("log2_growth")]
    optimizer = trial.optimizer([{"params": others}, *[{"params": scales}] * bool(scales)])
    for group in optimizer.param_groups[1:]:
        group["lr"] *= rate / RATE
    return optimizer


def _digits(found: Ratio) -> list[float]:
    return [float(f"{value:.3g}") for value in found]


if __name__ == "__main__":
    sys.exit(main())
