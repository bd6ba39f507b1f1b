"""Many small tasks: recipes are chosen on one half of them, and shown on the other."""

import itertools
from collections.abc import Callable, Collection, Iterable
from math import inf, log
from typing import Any, NamedTuple, TypeVar

from torch import nn

from app.lab.ratios import mean_ratio, ratio
from app.lab.suite import CHOOSING, REPORTING, SUITE, Trial, error
from benchmarks.contenders import CONTENDERS, Library, Trainee, nothing, trainee
from benchmarks.markdown import details, table
from benchmarks.sections.accuracy import in_words
from benchmarks.task import GRANULARITIES, Effort

T = TypeVar("T")


class Cell(NamedTuple):
    """Two rows of the table."""

    bits: float
    granularity: str
    activation_bits: int | None = None

    def __str__(self) -> str:
        words = in_words(self.bits, self.granularity)
        return words if self.activation_bits is None else f"{words}, activations INT{self.activation_bits}"


Key = tuple[Cell, str]  # and the recipe
Errors = dict[Key, dict[str, list[float]] | str]  # of a recipe: task -> errors of its seeds, or why there are none
FLOAT: Key = (Cell(32, "float32"), "FP32")
TERNARY_BITS = 1.58
WHOLE = tuple(itertools.starmap(Cell, itertools.product((4, 2), GRANULARITIES)))
SHORT = tuple(itertools.starmap(Cell, itertools.product((3, TERNARY_BITS), GRANULARITIES))) + tuple(
    Cell(4, granularity, activation_bits) for activation_bits in (8, 4) for granularity in GRANULARITIES
)
CELLS = WHOLE + SHORT
SEEDS = 2


def _all_can_take(trial: Trial) -> bool:
    """Has its network nothing but layers that every contender quantizes?"""
    with_weights = (m for m in trial.model().modules() if next(m.parameters(recurse=False), None) is not None)
    return all(isinstance(layer, nn.Linear | nn.Conv2d) for layer in with_weights)


TASKS = tuple(name for name, trial in SUITE.items() if _all_can_take(trial))
CHOSEN_ON, SHOWN = (tuple(name for name in half if name in TASKS) for half in (CHOOSING, REPORTING))

TITLE = "Tasks on which nobody was tuned"
READING = (
    f"Error / float32's: the geometric mean over {', '.join(SHOWN)}, and where there are several seeds 95% of its "
    "bootstrap over them; lower is better. Only weights are quantized where no activations are named; data, first "
    "weights, batches, optimizer and schedule are the task's (`app/lab/suite.py`). The recipe *for all rows* did best "
    f"over the rows of INT4 and INT2 weights on {', '.join(CHOSEN_ON)}, which are not shown; the *best of the row* was "
    "chosen on what is shown, which flatters those with many."
)
NOTES = (
    "INT4 and INT2 weights were trained by every recipe. The other rows have one seed of the tasks that are shown, by "
    "the recipes that the last table names, and a dash where there is none. Activations are the inputs of layers: "
    "torchao finds a scale and a zero point for each row of the batch, the others have one. torchao leaves "
    "convolutions and layers of one input in float32 and has no scale for a whole tensor; PARQ has weights alone. "
    "Networks with recurrent or attention layers are left out: not everybody quantizes those. In the first seed "
    "of ridges five of 2,000 test inputs, one of them 207 where training ends at 9, are 90% of float32's error: "
    "who clamps what lies far out is far below 1 there.\n\n"
    "*Scheduled* is `Schedule.over`. What it is good for was looked at on six curves that are not in the table, eight "
    "seeds each, Adam; error beside that of a learned scale from the first step on, with 95% of a bootstrap. INT4 per "
    "channel: half of the steps in float 0.35 (0.28 to 0.43), with what swings held 0.29 (0.23 to 0.35); PARQ annealed "
    "0.51 (0.42 to 0.64), with float until half and no annealing 0.49 (0.40 to 0.59), on its grid and scale from the "
    "first step on 0.76 (0.62 to 0.91); scales found anew at 30% of the steps, without any in float, 0.98 (0.88 to "
    "1.08); gradients through what is clamped 0.99 (0.80 to 1.22). So PARQ's lead there is its start in float. INT3 "
    "per channel, half and held, on five of the curves: 0.18 (0.15 to 0.21). INT2 per channel, a quarter and held: "
    "0.49 (0.43 to 0.58), PARQ 0.39 (0.31 to 0.48). Networks that are quantized from the first step on can end below 1 "
    "where float32's overfits, as on hills; those that learn in float first come close to 1 there. On the "
    "sine, whose 2,000 steps are enough when quantized from the first one on, the schedule is nowhere better "
    "(*Accuracy*)."
)


def jobs(library: Library, effort: Effort) -> list[dict[str, Any]]:
    """One seed after another: an interrupted run has whole seeds. SHORT cells have one, of the SHORTLIST alone."""
    whole = [FLOAT, *_keys(library, WHOLE)]
    short = [key for key in _keys(library, SHORT) if key[1] in library.SHORTLIST]
    return [
        {"task": task, **_fields(cell), "recipe": recipe, "seed": seed}
        for seed in range(min(SEEDS, effort.seeds))
        for cell, recipe in whole + short * (seed == 0)
        for task in _tasks_of(cell)
    ]


def _tasks_of(cell: Cell) -> tuple[str, ...]:
    """Recipes are chosen on the cells that are measured whole."""
    return SHOWN if cell in SHORT else TASKS


def _keys(library: Library, cells: Iterable[Cell]) -> list[Key]:
    return [(cell, recipe) for cell in cells for recipe in library.recipes(*cell)]


def _fields(cell: Cell) -> dict[str, Any]:
    """Of a row; one without activations does not name them."""
    return {name: value for name, value in cell._asdict().items() if value is not None}


def measure(library: Library, job: dict[str, Any], effort: Effort) -> dict[str, float]:
    trial = SUITE[job["task"]].shortened(effort.steps)
    model, data = trial.start(job["seed"])
    cell, recipe = key = _key_of(job)
    if key == FLOAT:
        trained = Trainee(model, trial.optimizer(model.parameters()), nothing)
    else:
        weights = (cell.bits, cell.granularity, recipe)
        trained = trainee(library, model, data.x, *weights, trial.steps, trial.optimizer, cell.activation_bits)
    trial.fit(trained.model.train(), trained.optimizer, data, job["seed"], trained.after_step)
    return {"error": error(trained.model, data)}


def _key_of(row: dict[str, Any]) -> Key:
    return Cell(row["bits"], row["granularity"], row.get("activation_bits")), row["recipe"]


def render(rows: dict[str, list[dict[str, Any]]]) -> str:
    """One recipe for everything and the best of each row; then all recipes, task by task.

    Contenders are compared over the seeds that all have whole; who has more has a column for these.
    """
    whole = {name: _errors(found) for name, found in rows.items()}
    common = min(filter(None, (_seeds(found, CELLS) for found in whole.values())), default=0)
    errors = {name: _first(common, found) for name, found in whole.items()}
    columns = {f"{CONTENDERS[name].title}, {_number(common)}": found for name, found in errors.items()}
    for name, found in whole.items():
        if (seeds := _seeds(found, WHOLE)) > common:
            columns[f"{CONTENDERS[name].title}, {_number(seeds)}"] = _first(seeds, found)
    lines = [
        [f"{cell}, {kind}", *(_said(found, recipe_of(found, cell)) for found in columns.values())]
        for cell in CELLS
        for kind, recipe_of in (("for all rows", _for_all_rows), ("best of the row", _best))
    ]
    every = [
        [CONTENDERS[name].title, str(key[0]), key[1], *(_of_task(found, key, task) for task in TASKS)]
        for name, found in errors.items()
        for key in found
        if key != FLOAT
    ]
    all_recipes = table(["contender", "weights", "recipe", *TASKS], every)
    return "\n\n".join(
        [
            table(["weights, recipe", *columns], lines),
            NOTES,
            details(f"Every recipe and task, {_number(common)}", all_recipes),
        ]
    )


def _errors(rows: list[dict[str, Any]]) -> Errors:
    found: Errors = {}
    for row in rows:
        if "failed" in row:
            found[_key_of(row)] = row["failed"]
        elif not isinstance(tasks := found.setdefault(_key_of(row), {}), str):
            tasks.setdefault(row["task"], []).append(row["error"])
    return found


def _seeds(errors: Errors, cells: Collection[Cell]) -> int:
    """How many are whole in these cells, of what was measured there."""
    found = [_seeds_of(key[0], of) for key, of in errors.items() if key[0] in cells and not isinstance(of, str)]
    return min(found, default=0)


def _seeds_of(cell: Cell, errors: dict[str, list[float]]) -> int:
    return min(len(errors.get(task, ())) for task in _tasks_of(cell))


def _first(seeds: int, errors: Errors) -> Errors:
    """These seeds alone, of what has so many."""
    return {
        key: found if isinstance(found, str) else {task: values[:seeds] for task, values in found.items()}
        for key, found in errors.items()
        if isinstance(found, str) or _seeds_of(key[0], found) >= seeds
    }


def _number(seeds: int) -> str:
    return f"{seeds} seed" + "s" * (seeds != 1)


def _for_all_rows(errors: Errors, cell: Cell) -> Key | None:
    """The recipe that did best on the tasks to choose on, over all WHOLE cells that this contender has."""
    cells = {key[0] for key in errors if key[0] in WHOLE}
    sums = {}
    for recipe in {key[1] for key in errors if key[0] in WHOLE}:
        ratios = [_over_seeds(mean_ratio, errors, (of, recipe), CHOSEN_ON) for of in cells]
        if all(ratios):
            sums[recipe] = sum(log(found) for found in ratios if found)
    best = min(sums, key=lambda recipe: sums[recipe], default=None)
    return (cell, best) if best and (cell, best) in errors else None


def _best(errors: Errors, cell: Cell) -> Key | None:
    ratios = {key: _over_seeds(mean_ratio, errors, key, SHOWN) for key in errors if key[0] == cell}
    return min((key for key in ratios if ratios[key]), key=lambda key: ratios[key] or inf, default=None)


def _over_seeds(of_errors: Callable[..., T], errors: Errors, key: Key, tasks: tuple[str, ...]) -> T | None:
    """A ratio over the seeds that all of these tasks have; None where a run failed, or there is no such seed."""
    found, fp32 = errors.get(key), errors.get(FLOAT)
    if not isinstance(found, dict) or not isinstance(fp32, dict):
        return None
    seeds = min(len(of.get(task, ())) for of in (found, fp32) for task in tasks)
    return of_errors(*({task: of[task][:seeds] for task in tasks} for of in (found, fp32))) if seeds else None


def _said(errors: Errors, key: Key | None) -> str:
    found = key and _over_seeds(ratio, errors, key, SHOWN)
    if not (key and found):
        return "-"
    fp32 = errors[FLOAT]
    only_one = isinstance(fp32, dict) and len(fp32[SHOWN[0]]) == 1
    return f"{found.mean:.2f}<br>{key[1]}" if only_one else f"{found}<br>{key[1]}"


def _of_task(errors: Errors, key: Key, task: str) -> str:
    if isinstance(found := errors[key], str):
        return found
    of_task = _over_seeds(mean_ratio, errors, key, (task,))
    return f"{of_task:.2f}" if of_task else "-"
