"""`python -m app.lab.rates FILE`: what the rate at which a scale learns does to the error, for the chapter on the STE.

Only tasks that are there to choose recipes on are trained, those with Adam: there the rate of a scale is its learning
rate beside that of the weights, and an optimizer with two groups of parameters has it.
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
from qat_core import QATConfig, QuantSpec, prepare
from qat_core.lsq import RATE

TASKS = ("waves", "staircase", "friedman", "breast cancer")
SEEDS = 2
RATES = (0.25, 0.5, 1, 2, 4, 8, 16)
BITS = (4, 2)


def main(argv: Sequence[str] | None = None) -> int:
    """Train with every rate; the file appears when it is whole."""
    return write("rates", lambda _: to_json(), argv)


def to_json(tasks: Sequence[str] = TASKS, seeds: int = SEEDS, rates: Sequence[float] = RATES) -> str:
    """Error / float32's for each width and rate: the geometric mean over tasks, and 95% of its bootstrap."""
    fix_threads()
    fp32 = _errors(tasks, seeds, bits=None)
    found = {bits: [ratio(_errors(tasks, seeds, bits, rate), fp32) for rate in rates] for bits in BITS}
    kept = {
        "tasks": list(tasks),
        "seeds": seeds,
        "rates": list(rates),
        "chosen": RATE,
        "errors": {bits: [_digits(of_rate) for of_rate in of_rates] for bits, of_rates in found.items()},
    }
    return json.dumps(kept, separators=(",", ":")) + "\n"


def _errors(tasks: Iterable[str], seeds: int, bits: float | None, rate: float = RATE) -> dict[str, list[float]]:
    return {task: [_error(SUITE[task], seed, bits, rate) for seed in range(seeds)] for task in tasks}


def _error(trial: Trial, seed: int, bits: float | None, rate: float) -> float:
    model, data = trial.start(seed)
    if bits is not None:
        model = prepare(model, QATConfig(QuantSpec(bits, scale="learned")))
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
