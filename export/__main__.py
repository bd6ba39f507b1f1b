"""`python -m export check|inspect|run FILE`: what the engineer who was handed a file asks it.

Exit code 0: it holds. 1: it does not, with one sentence why. 2: the question was wrong.
"""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from export.audit import audit
from export.compare import ParityError, ParityReport
from export.files import FileError, load
from export.receipt import ReceiptError, check, read
from export.runtime import Setup, run, session


def main(argv: Sequence[str] | None = None) -> int:
    """Answer one command line; returns the exit code."""
    args = _parser().parse_args(argv)
    try:
        return int(args.command(args))
    except (FileError, ReceiptError, ParityError) as error:
        return _fail(args, str(error), 1)
    except _UsageError as error:
        return _fail(args, str(error), 2)


def check_command(args: argparse.Namespace) -> int:
    """Recompute the receipt on this machine."""
    report = check(args.file, _setup(args))
    lost = str(report.kernels) if report.kernels and report.kernels.missing else ""
    if args.json:
        print(json.dumps({"file": args.file, **report.as_dict()}))
    else:
        print_parity(report)
        print(report)
        verdict = "does NOT hold" if lost or not report.ok else "holds"
        print(f"{args.file}: the receipt {verdict} on this machine (tolerance {report.tolerance:.3g})")
    if lost:
        print(f"{args.file}: {lost}", file=sys.stderr)
    if not report.ok:
        worst = max(report.levels, key=lambda level: level.max_abs_diff)
        print(
            f"{args.file}: {worst.code_mismatches} of {worst.outputs} outputs differ at level {worst.level}, "
            f"by up to {worst.max_abs_diff:.3g}",
            file=sys.stderr,
        )
    return 1 if lost or not report.ok else 0


def inspect_command(args: argparse.Namespace) -> int:
    """List initializers, bytes and the receipt's settings."""
    found = audit(args.file)
    try:
        receipt = read(load(args.file))
    except ReceiptError as error:
        receipt, note = None, str(error)
    if args.json:
        print(json.dumps({"file": args.file, **found.as_dict(), "receipt": receipt}))
        return 0
    table = Table("initializer", "role", "dtype", "shape", "bytes")
    for row in found.rows:
        shape = " x ".join(map(str, row.shape)) or "scalar"
        table.add_row(row.name, row.role, row.dtype, shape, f"{row.bytes:,}")
    Console().print(table)
    print(
        f"file {found.file_bytes:,} bytes; codes {found.code_bytes:,}; the same tensors in float32 {found.fp32_bytes:,}"
    )
    if found.float_matrices:
        print(f"float matrices: {', '.join(found.float_matrices)}")
    print(f"receipt: {json.dumps({k: receipt[k] for k in ('versions', 'settings')})}" if receipt else note)
    return 0


def run_command(args: argparse.Namespace) -> int:
    """Answer numbers with the file."""
    load(args.file)
    runtime = session(args.file)
    if len(runtime.get_inputs()) != 1:
        raise _UsageError(f"{args.file} has {len(runtime.get_inputs())} inputs; run answers files with one")
    shape = runtime.get_inputs()[0].shape[1:]
    row = math.prod(shape) if all(isinstance(size, int) for size in shape) else 0
    if row < 1 or len(args.x) % row:
        raise _UsageError(f"--x has {len(args.x)} numbers; expected a multiple of {row} (rows of shape {shape})")
    (output, *_) = run(runtime, [np.array(args.x, dtype=np.float32).reshape(-1, *shape)])
    if args.json:
        print(json.dumps({"file": args.file, "x": args.x, "y": output.tolist()}))
    else:
        for x, y in zip(np.reshape(args.x, (-1, row)), output, strict=True):
            print(f"{_numbers(x)} -> {_numbers(y)}")
    return 0


def print_parity(report: ParityReport) -> None:
    """A table: one row an optimization level."""
    table = Table("optimization level", "max |diff|", "ulps", "mean |diff|", "off", "outputs")
    for level in report.levels:
        table.add_row(
            level.level,
            f"{level.max_abs_diff:.3g}",
            f"{level.max_ulps:.2g}",
            f"{level.mean_abs_diff:.3g}",
            str(level.code_mismatches),
            str(level.outputs),
        )
    Console().print(table)


class _UsageError(ValueError):
    pass


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m export", description="Check, look into or run an exported file.")
    commands = parser.add_subparsers(required=True, metavar="check|inspect|run")
    for name, command in (("check", check_command), ("inspect", inspect_command), ("run", run_command)):
        sub = commands.add_parser(name, help=command.__doc__, description=command.__doc__)
        sub.add_argument("file", metavar="FILE", help="an ONNX file")
        sub.add_argument("--json", action="store_true", help="print one JSON object")
        sub.set_defaults(command=command)
        if name == "check":
            sub.add_argument("--threads", type=int, default=1, metavar="N", help="within an operator (default: 1)")
            sub.add_argument("--provider", action="append", metavar="NAME", help="execution provider, preferred first")
            sub.add_argument(
                "--config", action="append", type=_parse_entry, metavar="KEY=VALUE", help="session configuration entry"
            )
        if name == "run":
            sub.add_argument(
                "--x", type=_parse_numbers, required=True, metavar="0.5,1.0", help="numbers, comma between"
            )
    return parser


def _setup(args: argparse.Namespace) -> Setup:
    try:
        return Setup(tuple(args.provider or Setup.providers), args.threads, dict(args.config or ()))
    except ValueError as error:
        raise _UsageError(str(error)) from error


def _parse_entry(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    return key, value


def _parse_numbers(text: str) -> list[float]:
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = [math.nan]
    if not all(map(math.isfinite, numbers)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of finite numbers such as 0.5,1.0")
    return numbers


def _fail(args: argparse.Namespace, sentence: str, code: int) -> int:
    if args.json:
        print(json.dumps({"file": args.file, "ok": False, "error": sentence}))
    print(f"{args.file}: {sentence}" if args.file not in sentence else sentence, file=sys.stderr)
    return code


def _numbers(values: Any) -> str:
    return ", ".join(f"{float(v):.7g}" for v in np.ravel(values))


if __name__ == "__main__":
    sys.exit(main())
