"""`python -m app.lab`: the experiment of the page in a terminal.

Exit code 0: done. 1: training diverged, or the file did not keep its promise. 2: the question was wrong.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, NoReturn

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from app.lab import devices
from app.lab.figure import comparison, fits
from app.lab.fit import MODELS, Experiment, Settings, StepRecord, TrainingDiverged
from app.lab.points import load_csv
from app.lab.tasks import DigitsTask, PointsTask, SineTask
from export import FileError, ParityError, audit, export_onnx
from export.read.report import print_parity
from export.read.runtime import run, session
from export.write.tensors import to_numpy

MODEL, REPORT, PICTURE, FIT = "model.onnx", "parity.json", "qat_success.png", "fit.png"
WRITTEN = (MODEL, REPORT, PICTURE, FIT)  # into the folder, as far as the task has it
METRICS = {
    "mse_clean": "MSE against the clean sine",
    "mse_train": "MSE against the points",
    "accuracy": "accuracy on images never seen",
    "loss_train": "training loss",
}
BESIDE = ("points", "device")  # settings that the printed object does not have in its config
TITLES = {"fp32": "FP32 baseline", "ptq": "naive PTQ", "qat": "QAT"}


def main(argv: Sequence[str] | None = None) -> int:
    """Answer one command line; returns the exit code."""
    started = time.perf_counter()
    args = _parser().parse_args(argv)
    try:
        if args.csv:
            if args.task:
                raise ValueError(f"--csv and --task {args.task}; expected one of them: the points are the task")
            args.points, note = load_csv(args.csv, _columns(args.columns))
            if note:
                print(f"{args.csv}: {note}.", file=sys.stderr)
        elif args.columns:
            raise ValueError(f"--columns {args.columns} without --csv; expected both, or neither")
        args.task = args.task or ("points" if args.csv else "sine")
        given: dict[str, Any] = {f.name: getattr(args, f.name, None) for f in fields(Settings)}
        settings = Settings.of(**given)
        experiment = Experiment(settings)
        out = Path(args.out)
        out.mkdir(parents=True, exist_ok=True)
        if old := [name for name in WRITTEN if (out / name).exists()]:
            print(f"{out}: {', '.join(old)} of an earlier run will be replaced.", file=sys.stderr)
    except (ValueError, OSError) as error:
        print(f"python -m app.lab: {error}", file=sys.stderr)
        return 2
    try:
        record = _train(experiment, quiet=args.json)
        for name in WRITTEN:  # what an earlier run has left is of another network
            (out / name).unlink(missing_ok=True)
        path = out / MODEL
        parity = export_onnx(experiment.models["qat"], experiment.task.examples, path)
    except (TrainingDiverged, ParityError, FileError) as error:
        print(f"python -m app.lab: {error}", file=sys.stderr)
        return 1
    found = audit(path)
    result: dict[str, Any] = {
        "config": {name: value for name, value in asdict(settings).items() if name not in BESIDE},
        "device": settings.device,
        "seconds": round(time.perf_counter() - started, 3),
        **{name: {metric: values[name] for metric, values in record.metrics.items()} for name in MODELS},
        "onnx": {"path": str(path), "bytes": found.file_bytes, "fp32_bytes": found.fp32_bytes},
        "parity": parity.as_dict(),
    }
    picture = None
    if isinstance(experiment.task, DigitsTask):
        (scores,) = run(session(path), [to_numpy(experiment.task.examples)])
        result["onnx"]["accuracy"] = experiment.task.accuracy(torch.from_numpy(scores))
    elif isinstance(experiment.task, SineTask):
        picture = out / PICTURE
        comparison(settings, record, picture)
    elif isinstance(experiment.task, PointsTask):
        picture = out / FIT
        fits(settings, record, picture)
    (out / REPORT).write_text(json.dumps(result["parity"], indent=2) + "\n")
    if args.json:
        print(json.dumps(result))
    else:
        _print(result)
        print_parity(parity)
        print(f"{path}: {found.file_bytes:,} bytes, {found.fp32_bytes:,} in float32. Check it anywhere: ", end="")
        print(f"python -m export check {path}")
        print(f"the parity report: {out / REPORT}" + (f"; the picture: {picture}" if picture else ""))
    return 0


def _train(experiment: Experiment, quiet: bool) -> StepRecord:
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True), disable=quiet) as progress:
        task = progress.add_task("training", total=experiment.settings.steps)
        for record in experiment.run(every=50):
            metric = next(iter(record.metrics.values()))
            losses = ", ".join(f"{TITLES[name]} {metric[name]:.4f}" for name in MODELS)
            progress.update(task, completed=record.step, description=losses)
    return record


def _print(result: dict[str, Any]) -> None:
    config = result["config"]
    widths = f"W{config['bits']:g}" + (f" A{config['activation_bits']}" if config["activation_bits"] else "")
    title = f"{config['task']}, {widths}, {config['granularity']}, seed {config['seed']}, {result['device']}"
    table = Table("model", *(METRICS[metric] for metric in result["fp32"]), title=title)
    for name in MODELS:
        table.add_row(TITLES[name], *(f"{value:.5f}" for value in result[name].values()))
    Console().print(table)
    if "accuracy" in result["onnx"]:
        print(f"the exported QAT model in onnxruntime: accuracy {result['onnx']['accuracy']:.5f}")


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m app.lab", description="Train a network three times: FP32, naive PTQ, QAT; export the last."
    )
    add = parser.add_argument
    add("--task", help="sine (default) or digits: a small CNN on handwritten digits")
    add("--csv", metavar="FILE", help="fit your own points instead: two columns, x and y")
    add(
        "--columns",
        metavar="X,Y",
        help="of the CSV: names in its header, or numbers (default: the first two of numbers)",
    )
    add("--bits", type=_whole_or_not, help="width of a weight's code: 1.58, 2, 3, 4 or 8 (default 4; digits 2)")
    add("--granularity", default="per_tensor", help="per_tensor (default), per_channel or per_group")
    add("--scale", default="minmax", help="where scales come from: minmax (default), mse or learned")
    add("--activation-bits", type=_whole_or_not, help="width of an activation's code; without it they stay in float")
    add("--seed", type=_whole, default=0, help="of the noise and of the first weights (default 0)")
    add("--steps", type=_whole, help="optimizer steps (default 2000; digits 575, which is 25 epochs)")
    add("--noise", type=_number, default=0.1, help="standard deviation of the points' noise (default 0.1)")
    add("--width", type=_whole, default=64, help="neurons of a hidden layer (default 64)")
    add("--learning-rate", type=_number, help="of Adam, before its cosine decay (default 0.01; digits 0.003)")
    add("--scale-factor", type=_number, default=1.0, help="multiplies every weight's scale, to see it fail (default 1)")
    add("--device", default=devices.AUTO, help="auto (default: the best that is there), cuda, mps, xpu or cpu")
    add("--out", default="out", help="folder for the file, the report and the picture (default out)")
    add("--json", action="store_true", help="print one JSON object and nothing else")
    return parser


def _columns(text: str | None) -> tuple[str, str] | None:
    if text is None:
        return None
    names = [name.strip() for name in text.split(",")]
    if len(names) != 2:
        raise ValueError(f"--columns {text}; expected two names or numbers with a comma between")
    return names[0], names[1]


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}; expected a number") from None


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}; expected a whole number") from None


def _whole_or_not(text: str) -> float:
    value = _number(text)
    return int(value) if value.is_integer() else value


class Parser(argparse.ArgumentParser):
    """Answers a wrong command line with one sentence."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message.replace('argument ', '', 1)}; --help lists what there is\n")


if __name__ == "__main__":
    sys.exit(main())
