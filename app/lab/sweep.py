"""`python -m app.lab.sweep`: many small trainings at once, on the cores of a machine or on a Ray cluster.

Rows are appended to a file of JSON lines as they come. The same command goes on where it stopped.
"""

import argparse
import contextlib
import itertools
import json
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, cast

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

import app
import export
import qat_core
from app.lab.figure import pareto
from app.lab.ratios import Ratio, ratio
from app.lab.suite import CHOOSING, REPORTING, SUITE, error
from app.lab.threads import fix_threads
from qat_core import QATConfig, QuantSpec, calibrate, plan, prepare

FLOAT = 32
HALVES = {"all": tuple(SUITE), "choosing": CHOOSING, "reporting": REPORTING}
Row = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """One training. 32 bits are float32, where nothing else counts; `activation_bits` None leaves activations there."""

    task: str
    seed: int
    bits: float = FLOAT
    granularity: str = ""
    scale: str = ""
    activation_bits: float | None = None

    @property
    def config(self) -> QATConfig:
        if self.bits == FLOAT:
            return QATConfig()
        weight = QuantSpec(self.bits, self.granularity, scale=self.scale)  # type: ignore[arg-type]
        if self.activation_bits is None:
            return QATConfig(weight)
        return QATConfig(weight, QuantSpec.activation(self.activation_bits, scale=self.scale))

    @property
    def recipe(self) -> tuple[float, str, str, float | None]:
        return self.bits, self.granularity, self.scale, self.activation_bits

    @classmethod
    def of(cls, row: Row) -> "Job":
        return cls(**{field.name: row[field.name] for field in fields(cls)})


def jobs_of(
    tasks: Iterable[str],
    bits: Iterable[float],
    granularities: Iterable[str],
    scales: Iterable[str],
    activation_bits: Iterable[float | None],
    seeds: int,
) -> list[Job]:
    """Every combination, float32 first: all others are measured by it."""
    recipes = [(FLOAT, "", "", None), *itertools.product(bits, granularities, scales, activation_bits)]
    return [Job(task, seed, *recipe) for recipe in recipes for task in tasks for seed in range(seeds)]


def measure(job: Job) -> Row:
    """Train one network with what `prepare` gives and the optimizer of the task, nothing else being set."""
    fix_threads()
    started, trial = time.perf_counter(), SUITE[job.task]
    model, data = trial.start(job.seed)
    planned = plan(model, job.config)
    size = planned.bytes_before
    if job.bits != FLOAT:
        model, size = prepare(model, job.config), planned.bytes_after
        if job.activation_bits is not None:
            calibrate(model, [data.x])
    trial.fit(model.train(), trial.optimizer(model.parameters()), data, job.seed)
    row = {**asdict(job), "bytes": size}
    try:
        row["error"] = error(model, data)
    except FloatingPointError as diverged:
        row |= {"error": None, "failed": str(diverged)}
    return row | {"seconds": round(time.perf_counter() - started, 3)}


def on_cores(jobs: Iterable[Job], processes: int) -> Iterator[Row]:
    """Rows in the order in which they are done."""
    from joblib import Parallel, delayed

    parallel = Parallel(n_jobs=processes, return_as="generator_unordered", batch_size=1)
    return cast(Iterator[Row], parallel(delayed(measure)(job) for job in jobs))


def on_ray(jobs: Iterable[Job], address: str | None) -> Iterator[Row]:
    """The same on a cluster; what a worker had in hand when it died is done by another."""
    import ray

    ours = [str(Path(room.__file__).parent) for room in (app, export, qat_core) if room.__file__]
    if not ray.is_initialized():
        ray.init(address=address, runtime_env={"py_modules": ours}, log_to_driver=False)
    train = ray.remote(max_retries=-1)(measure)
    waiting = [train.remote(job) for job in jobs]
    while waiting:
        done, waiting = ray.wait(waiting)
        yield from ray.get(done)


def kept(path: Path) -> dict[Job, Row]:
    """The rows of a file; a last line that was not written to its end is cut off.

    Raises:
        ValueError: a line is not a row; the message has its number.
    """
    if not path.exists():
        return {}
    whole = path.read_bytes()
    if not whole.endswith(b"\n"):
        whole = whole[: whole.rfind(b"\n") + 1]
        path.write_bytes(whole)
    rows = {}
    for number, line in enumerate(whole.decode().splitlines(), 1):
        try:
            row = json.loads(line)
            rows[Job.of(row)] = row
        except (ValueError, KeyError, TypeError) as problem:
            raise ValueError(f"line {number} of {path} is {line[:60]!r}; expected a row of a sweep") from problem
    return rows


def sweep(jobs: Sequence[Job], path: Path, run: Callable[[list[Job]], Iterator[Row]]) -> dict[Job, Row]:
    """Measure what the file does not have yet, appending each row as it comes, and return all rows asked for."""
    rows = kept(path)
    left = [job for job in jobs if job not in rows]
    columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with path.open("a") as file, Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task("", total=len(jobs), completed=len(jobs) - len(left))
        if left:
            with contextlib.closing(cast(Any, run(left))) as found:
                for row in found:
                    file.write(json.dumps(row) + "\n")
                    file.flush()
                    rows[Job.of(row)] = row
                    progress.advance(bar)
    return {job: rows[job] for job in jobs}


def summary(rows: dict[Job, Row]) -> dict[tuple[Any, ...], tuple[Ratio | None, float]]:
    """Recipe -> its errors as a multiple of float32's, None where a run diverged; and its bytes, as a part of them."""
    by_recipe: dict[tuple[Any, ...], dict[str, list[Row]]] = {}
    for job, row in rows.items():
        by_recipe.setdefault(job.recipe, {}).setdefault(job.task, []).append(row)
    fp32 = by_recipe[Job("", 0).recipe]
    found = {}
    for recipe, tasks in by_recipe.items():
        errors, floats = ({task: [row["error"] for row in of[task]] for task in tasks} for of in (tasks, fp32))
        whole = all(value is not None for part in (errors, floats) for values in part.values() for value in values)
        sizes, full = (sum(of[task][0]["bytes"] for task in tasks) for of in (tasks, fp32))
        found[recipe] = (ratio(errors, floats) if whole else None, sizes / full)
    return found


def name_of(recipe: tuple[Any, ...]) -> str:
    """W4A8 per_channel learned."""
    bits, granularity, scale, activation = recipe
    if bits == FLOAT:
        return "float32"
    return f"W{bits:g}{f'A{activation:g}' if activation else ''} {granularity} {scale}"


def main(argv: Sequence[str] | None = None) -> int:
    """Answer one command line; returns the exit code: 130 after Ctrl-C."""
    args = _parser().parse_args(argv)
    out = Path(args.out)
    try:
        jobs = jobs_of(args.tasks, args.bits, args.granularity, args.scale, args.activation_bits, args.seeds)
        for job in jobs:
            _ = job.config
        out.parent.mkdir(parents=True, exist_ok=True)
        kept(out)
    except (ValueError, OSError) as problem:
        print(f"python -m app.lab.sweep: {problem}", file=sys.stderr)
        return 2
    try:
        if args.backend == "ray":
            rows = sweep(jobs, out, lambda left: on_ray(left, args.address))
        else:
            rows = sweep(jobs, out, lambda left: on_cores(left, args.jobs))
    except KeyboardInterrupt:
        done = sum(job in kept(out) for job in jobs)
        print(f"stopped: {done} of {len(jobs)} rows are in {out}; the same command goes on", file=sys.stderr)
        return 130
    found = summary(rows)
    table = Table("recipe", "error / FP32's", "bytes / FP32's")
    for recipe, (error_ratio, size) in found.items():
        table.add_row(name_of(recipe), "diverged" if error_ratio is None else str(error_ratio), f"{size:.3f}")
    Console().print(table)
    picture = out.with_suffix(".png")
    pareto({key: (found_ratio, size) for key, (found_ratio, size) in found.items() if found_ratio}, picture)
    print(f"{out}: {len(rows)} rows; the picture: {picture}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m app.lab.sweep", description="Train many small tasks with many recipes: a table and a picture."
    )
    add = parser.add_argument
    add(
        "--tasks",
        type=_tasks,
        default=tuple(SUITE),
        help=f"all (default), choosing, reporting, or of {', '.join(SUITE)}",
    )
    add("--bits", type=_numbers, default=[4], help="widths of a weight's code, such as 2,3,4 (default 4)")
    add("--granularity", type=_words, default=["per_channel"], help="per_tensor, per_channel (default), per_group")
    add("--scale", type=_words, default=["learned"], help="of minmax, mse, learned (default)")
    add("--activation-bits", type=_numbers, default=[None], help="widths of activations; without it they stay in float")
    add("--seeds", type=int, default=5, help="trainings of each, seeded 0, 1, ... (default 5)")
    add("--jobs", type=int, default=1, help="processes at once (default 1); -1 is one for each core")
    add("--backend", choices=("processes", "ray"), default="processes", help="ray: pip install ray")
    add("--address", help="of a Ray cluster; auto finds one, without it Ray starts one here")
    add("--out", default="out/sweep.jsonl", help="the rows; a picture is written beside them (default out/sweep.jsonl)")
    return parser


def _words(text: str) -> list[str]:
    return text.split(",")


def _numbers(text: str) -> list[float]:
    return [int(value) if value.is_integer() else value for value in map(float, text.split(","))]


def _tasks(text: str) -> Collection[str]:
    names = HALVES.get(text) or text.split(",")
    if unknown := [name for name in names if name not in SUITE]:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is not one of {', '.join([*HALVES, *SUITE])}")
    return names


if __name__ == "__main__":
    sys.exit(main())
