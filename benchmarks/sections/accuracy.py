"""How well each contender's quantized network fits the sine."""

from statistics import median
from typing import Any

from app.lab.data import Sine
from app.lab.models import mlp
from benchmarks.contenders import CONTENDERS, Library, Trainee, nothing, trainee
from benchmarks.markdown import details, table
from benchmarks.task import BITS, GRANULARITIES, Effort, adam, fit

TITLE = "Accuracy"
READING = (
    "Mean squared error against the clean sine after {steps:,} steps: the median of {seeds} seeds and their range; "
    "lower is better. Only weights are quantized, those of every linear layer. Data, first weights, optimizer and "
    "schedule are the same for all. Each contender is shown with the recipe that did best in that row, which flatters "
    "those with many; where ranges overlap, nobody is better."
)
NOTES = """\
- torchao quantizes weights per channel only, and the layer with one input stays in float32, since it asserts that a
  channel has more than one weight. That is no great help: with a scale for each channel, a single weight is hardly
  rounded by anybody. PARQ is torchao's prototype that quantizes inside the optimizer.
- Brevitas' and ModelOpt's narrow range has three levels at 2 bits: the ternary rows. ModelOpt calibrates a weight's
  range once, before training, as it is meant for networks that are trained already; "dynamic" does not.
"""
Key = tuple[float, str, str]
FLOAT: Key = (32, "float32", "FP32")
Figures = dict[Key, list[float] | str]


def jobs(library: Library, effort: Effort) -> list[dict[str, Any]]:
    """FP32 comes first, in every environment: the same errors prove that all start from the same place."""
    keys = [FLOAT] + [(b, g, recipe) for b in BITS for g in GRANULARITIES for recipe in library.recipes(b, g)]
    return [
        {"bits": bits, "granularity": granularity, "recipe": recipe, "seed": seed}
        for bits, granularity, recipe in keys
        for seed in range(effort.seeds)
    ]


def measure(library: Library, job: dict[str, Any], effort: Effort) -> dict[str, float]:
    data, fp32 = Sine.sample(seed=job["seed"]), mlp(seed=job["seed"])
    if key_of(job) == FLOAT:
        trained = Trainee(fp32, adam(fp32.parameters()), nothing)
    else:
        trained = trainee(library, fp32, data.x, *key_of(job), effort.steps)
    return {"mse_clean": fit(*trained, data, effort.steps)}


def render(rows: dict[str, list[dict[str, Any]]]) -> str:
    """The best recipe of every contender, then all recipes."""
    figures = {name: _figures(found) for name, found in rows.items()}
    lines = [
        [in_words(bits, granularity), *(_best(figures[name], bits, granularity) for name in rows)]
        for bits, granularity in [FLOAT[:2], *((b, g) for b in reversed(BITS) for g in GRANULARITIES)]
    ]
    everything = [
        [CONTENDERS[name].title, in_words(bits, granularity), recipe, _cell(values)]
        for name in rows
        for (bits, granularity, recipe), values in figures[name].items()
    ]
    best = table(["weights", *(CONTENDERS[name].title for name in rows)], lines)
    every = details("Every recipe", table(["contender", "weights", "recipe", "error"], everything))
    return "\n\n".join([best, NOTES + _same_start(figures), every])


def _figures(rows: list[dict[str, Any]]) -> Figures:
    """The errors of each recipe over its seeds, or the message of the first seed that failed."""
    failures = {key_of(row): row["failed"] for row in reversed(rows) if "failed" in row}
    errors = {
        key: [row["mse_clean"] for row in rows if key_of(row) == key]
        for key in map(key_of, rows)
        if key not in failures
    }
    return {key: failures.get(key) or errors[key] for key in map(key_of, rows)}


def key_of(row: dict[str, Any]) -> Key:
    return row["bits"], row["granularity"], row["recipe"]


def _best(figures: Figures, bits: float, granularity: str) -> str:
    found = {recipe: values for (b, g, recipe), values in figures.items() if (b, g) == (bits, granularity)}
    trained = {recipe: values for recipe, values in found.items() if isinstance(values, list)}
    if not trained:
        return next((_cell(message) for message in found.values()), "-")
    recipe = min(trained, key=lambda name: median(trained[name]))
    return _cell(trained[recipe]) + (f"<br>{recipe}" if bits != 32 else "")


def _cell(values: list[float] | str) -> str:
    if isinstance(values, str):
        return values
    return f"{median(values):.4f} ({min(values):.4f} to {max(values):.4f})"


def in_words(bits: float, granularity: str) -> str:
    name = {32: "", 1.58: "ternary "}.get(bits, f"INT{bits:g} ")
    return name + granularity.replace("_", " ")


def _same_start(figures: dict[str, Figures]) -> str:
    starts = [values for found in figures.values() if isinstance(values := found.get(FLOAT), list)]
    apart = max((max(seed) - min(seed) for seed in zip(*starts, strict=False)), default=0.0)
    return f"- The largest difference between the float32 errors of two environments is {apart:.1g}."
