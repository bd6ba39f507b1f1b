"""Many small tasks: recipes are chosen on one half of them, and shown on the other."""

import itertools
from collections.abc import Callable
from math import inf, log
from typing import Any, TypeVar

from torch import nn

from app.lab.ratios import mean_ratio, ratio
from app.lab.suite import CHOOSING, REPORTING, SUITE, Trial, error
from benchmarks.contenders import CONTENDERS, Library, Trainee, nothing, trainee
from benchmarks.markdown import details, table
from benchmarks.sections.accuracy import FLOAT, Key, in_words, key_of
from benchmarks.task import GRANULARITIES, Effort

T = TypeVar("T")
Cell = tuple[float, str]
Errors = dict[Key, dict[str, list[float]] | str]  # of a recipe: task -> errors of its seeds, or why there are none
BITS = (4, 2)
CELLS: tuple[Cell, ...] = tuple(itertools.product(BITS, GRANULARITIES))
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
    "bootstrap over them; lower is better. Only weights are quantized; data, first weights, batches, optimizer and "
    f"schedule are the task's (`app/lab/suite.py`). The recipe *for all rows* did best over all rows on "
    f"{', '.join(CHOSEN_ON)}, which are not shown; the *best of the row* was chosen on what is shown, which flatters "
    "those with many."
)
NOTES = (
    "torchao leaves convolutions and layers of one input in float32. Networks with recurrent or attention layers are "
    "left out: not everybody quantizes those. Ours with Adam are older than the constant by which the gradient of a "
    "scale is divided, which Adam sees through its epsilon alone."
)


def jobs(library: Library, effort: Effort) -> list[dict[str, Any]]:
    """One seed after another: a run that is interrupted has whole seeds."""
    keys = [FLOAT] + [(*cell, recipe) for cell in CELLS for recipe in library.recipes(*cell)]
    return [
        {"task": task, "bits": bits, "granularity": granularity, "recipe": recipe, "seed": seed}
        for seed in range(min(SEEDS, effort.seeds))
        for bits, granularity, recipe in keys
        for task in TASKS
    ]


def measure(library: Library, job: dict[str, Any], effort: Effort) -> dict[str, float]:
    trial = SUITE[job["task"]].shortened(effort.steps)
    model, data = trial.start(job["seed"])
    if key_of(job) == FLOAT:
        trained = Trainee(model, trial.optimizer(model.parameters()), nothing)
    else:
        trained = trainee(library, model, data.x, *key_of(job), trial.steps, trial.optimizer)
    trial.fit(trained.model.train(), trained.optimizer, data, job["seed"], trained.after_step)
    return {"error": error(trained.model, data)}


def render(rows: dict[str, list[dict[str, Any]]]) -> str:
    """One recipe for everything and the best of each row; then all recipes, task by task.

    Contenders are compared over the seeds that all have whole; who has more has a column for these.
    """
    whole = {name: _errors(found) for name, found in rows.items()}
    seeds = {name: _seeds(found) for name, found in whole.items()}
    common = min(filter(None, seeds.values()), default=0)
    errors = {name: _first(common, found) for name, found in whole.items()}
    columns = {f"{CONTENDERS[name].title}, {_number(common)}": found for name, found in errors.items()}
    columns |= {f"{CONTENDERS[name].title}, {_number(n)}": whole[name] for name, n in seeds.items() if n > common}
    lines = [
        [f"{in_words(*cell)}, {kind}", *(_said(found, recipe_of(found, cell)) for found in columns.values())]
        for cell in CELLS
        for kind, recipe_of in (("for all rows", _for_all_rows), ("best of the row", _best))
    ]
    every = [
        [CONTENDERS[name].title, in_words(*key[:2]), key[2], *(_of_task(found, key, task) for task in TASKS)]
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
            found[key_of(row)] = row["failed"]
        elif not isinstance(tasks := found.setdefault(key_of(row), {}), str):
            tasks.setdefault(row["task"], []).append(row["error"])
    return found


def _seeds(errors: Errors) -> int:
    """How many are whole."""
    found = [tasks for tasks in errors.values() if not isinstance(tasks, str)]
    return min((len(tasks.get(task, ())) for tasks in found for task in TASKS), default=0)


def _first(seeds: int, errors: Errors) -> Errors:
    return {
        key: found if isinstance(found, str) else {task: values[:seeds] for task, values in found.items()}
        for key, found in errors.items()
    }


def _number(seeds: int) -> str:
    return f"{seeds} seed" + "s" * (seeds != 1)


def _for_all_rows(errors: Errors, cell: Cell) -> Key | None:
    """The recipe that did best on the tasks to choose on, over all rows that this contender has."""
    cells = {key[:2] for key in errors if key != FLOAT}
    sums = {}
    for recipe in {key[2] for key in errors if key != FLOAT}:
        ratios = [_over_seeds(mean_ratio, errors, (*of, recipe), CHOSEN_ON) for of in cells]
        if all(ratios):
            sums[recipe] = sum(log(found) for found in ratios if found)
    best = min(sums, key=lambda recipe: sums[recipe], default=None)
    return None if best is None or cell not in cells else (*cell, best)


def _best(errors: Errors, cell: Cell) -> Key | None:
    ratios = {key: _over_seeds(mean_ratio, errors, key, SHOWN) for key in errors if key[:2] == cell}
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
    return f"{found.mean:.2f}<br>{key[2]}" if only_one else f"{found}<br>{key[2]}"


def _of_task(errors: Errors, key: Key, task: str) -> str:
    if isinstance(found := errors[key], str):
        return found
    of_task = _over_seeds(mean_ratio, errors, key, (task,))
    return f"{of_task:.2f}" if of_task else "-"
