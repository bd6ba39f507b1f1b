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
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from app.figures import comparison
from app.lab.fit import MODELS, Experiment, Settings, StepRecord, TrainingDiverged
from export import FileError, ParityError, audit, export_onnx
from export.__main__ import print_parity

TITLES = {"fp32": "FP32 baseline", "ptq": "naive PTQ", "qat": "QAT"}


def main(argv: Sequence[str] | None = None) -> int:
    """Answer one command line; returns the exit code."""
    started = time.perf_counter()
    torch.set_num_threads(1)  # the matrices are tiny: a second thread only waits
    args = _parser().parse_args(argv)
    try:
        settings = Settings(**{f.name: getattr(args, f.name) for f in fields(Settings)})
        experiment = Experiment(settings, args.device)
        out = Path(args.out)
        out.mkdir(parents=True, exist_ok=True)
    except (ValueError, OSError) as error:
        print(f"python -m app.lab: {error}", file=sys.stderr)
        return 2
    try:
        record = _train(experiment, quiet=args.json)
        path = out / "model.onnx"
        parity = export_onnx(experiment.models["qat"], experiment.data.x, path)
    except (TrainingDiverged, ParityError, FileError) as error:
        print(f"python -m app.lab: {error}", file=sys.stderr)
        return 1
    found = audit(path)
    result = {
        "config": asdict(settings),
        "device": experiment.device.type,
        "seconds": round(time.perf_counter() - started, 3),
        **{name: {"mse_clean": record.mse_clean[name], "mse_train": record.mse_train[name]} for name in MODELS},
        "onnx": {"path": str(path), "bytes": found.file_bytes, "fp32_bytes": found.fp32_bytes},
        "parity": parity.as_dict(),
    }
    (out / "parity.json").write_text(json.dumps(result["parity"], indent=2) + "\n")
    comparison(settings, record, out / "qat_success.png")
    if args.json:
        print(json.dumps(result))
    else:
        _print(result)
        print_parity(parity)
        print(f"{path}: {found.file_bytes:,} bytes, {found.fp32_bytes:,} in float32. Check it anywhere: ", end="")
        print(f"python -m export check {path}")
        print(f"the picture: {out / 'qat_success.png'}; the parity report: {out / 'parity.json'}")
    return 0


def _train(experiment: Experiment, quiet: bool) -> StepRecord:
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True), disable=quiet) as progress:
        task = progress.add_task("training", total=experiment.settings.steps)
        for record in experiment.run(every=50):
            losses = ", ".join(f"{TITLES[name]} {record.mse_train[name]:.4f}" for name in MODELS)
            progress.update(task, completed=record.step, description=f"loss: {losses}")
    return record


def _print(result: dict[str, Any]) -> None:
    config = result["config"]
    title = f"{config['bits']:g} bits, {config['granularity']}, seed {config['seed']}, {result['device']}"
    table = Table("model", "MSE against the clean sine", "MSE against the noisy points", title=title)
    for name in MODELS:
        table.add_row(TITLES[name], f"{result[name]['mse_clean']:.5f}", f"{result[name]['mse_train']:.5f}")
    Console().print(table)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m app.lab", description="Fit a noisy sine three times: FP32, naive PTQ, QAT; export the last."
    )
    add = parser.add_argument
    add("--bits", type=_number, default=4, help="width of a weight's code: 2, 3, 4 or 8 (default 4)")
    add("--granularity", default="per_tensor", help="per_tensor (default) or per_channel")
    add("--scale", default="minmax", help="where scales come from: minmax")
    add("--seed", type=int, default=0, help="of the noise and of the first weights (default 0)")
    add("--steps", type=int, default=2000, help="optimizer steps (default 2000)")
    add("--noise", type=float, default=0.1, help="standard deviation of the points' noise (default 0.1)")
    add("--width", type=int, default=64, help="neurons of a hidden layer (default 64)")
    add("--learning-rate", type=float, default=1e-2, help="of Adam, before its cosine decay (default 0.01)")
    add("--device", default="auto", help="auto (default), cuda, mps or cpu")
    add("--out", default="out", help="folder for the file, the report and the picture (default out)")
    add("--json", action="store_true", help="print one JSON object and nothing else")
    return parser


def _number(text: str) -> float:
    value = float(text)
    return int(value) if value.is_integer() else value


if __name__ == "__main__":
    sys.exit(main())
