"""`python -m export check|inspect|run|pack FILE`: what the engineer who was handed a file asks it.

Exit code 0: it holds. 1: it does not, with one sentence why. 2: the question was wrong.
"""

import argparse
import json
import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from export.read.audit import Audit, audit
from export.read.compare import ParityError, ParityReport
from export.read.draw.nibbles import nibbles_svg, packed
from export.read.draw.picture import graph_svg
from export.read.files import FileError, load
from export.read.latency import latency
from export.read.pack import pack
from export.read.receipt import ReceiptError, check, read
from export.read.runtime import InputsError, Setup, run, session

NOT_IN_A_FILE_NAME = r"[^\w.-]"


def main(argv: Sequence[str] | None = None) -> int:
    """Answer one command line; returns the exit code."""
    args = _parser().parse_args(argv)
    try:
        return int(args.command(args))
    except (FileError, ReceiptError, ParityError) as error:
        return _fail(args, str(error), 1)
    except (_UsageError, InputsError) as error:
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
    """List tensors, bytes and the receipt's settings; with --svg, draw the graph and the codes."""
    found = audit(args.file)
    try:
        receipt, note = read(load(args.file)), ""
    except ReceiptError as error:
        receipt, note = None, str(error)
    pictures = [str(path) for path in draw(Path(args.file), args.svg)] if args.svg else []
    if args.json:
        print(json.dumps({"file": args.file, **found.as_dict(), "receipt": receipt, "pictures": pictures}))
        return 0
    print_audit(found)
    print(f"receipt: {json.dumps({k: receipt.get(k) for k in ('versions', 'settings')})}" if receipt else note)
    for path in pictures:
        print(f"drawn: {path}")
    return 0


def draw(file: Path, folder: Path) -> list[Path]:
    """The graph of a file and the codes of each of its quantized tensors, as SVG pictures in a folder.

    Raises:
        FileError: the file cannot be used or the folder cannot be written.
    """
    pictures = {"graph": graph_svg(file), **{name: nibbles_svg(file, name) for name in packed(file)}}
    paths = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in pictures.items():
            paths.append(folder / f"{file.stem}.{re.sub(NOT_IN_A_FILE_NAME, '_', name)}.svg")
            paths[-1].write_text(text, encoding="utf-8")
    except OSError as error:
        raise FileError(f"cannot write {folder}: {error.strerror or error}") from error
    return paths


def pack_command(args: argparse.Namespace) -> int:
    """Write the checker itself as one file to hand on: it runs with Python, onnx and onnxruntime."""
    pack(args.file)
    print(json.dumps({"file": args.file}) if args.json else f"{args.file}: try `python {args.file} check MODEL.onnx`")
    return 0


def run_command(args: argparse.Namespace) -> int:
    """Answer numbers with the file."""
    load(args.file)
    runtime = session(args.file)
    if len(runtime.get_inputs()) != 1:
        raise _UsageError(f"{args.file} has {len(runtime.get_inputs())} inputs; run answers files with one")
    taken = runtime.get_inputs()[0]
    shape = taken.shape[1:]
    row = math.prod(shape) if all(isinstance(size, int) for size in shape) else 0
    if taken.type != "tensor(float)" or row < 1:
        raise _UsageError(
            f"{args.file} takes {taken.type} with rows of shape {shape}; run answers files that take tensor(float) in "
            "rows of a fixed size"
        )
    if len(args.x) % row:
        raise _UsageError(f"--x has {len(args.x)} numbers; expected a multiple of {row} (rows of shape {shape})")
    (output, *_) = run(runtime, [np.array(args.x, dtype=np.float32).reshape(-1, *shape)])
    if args.json:
        print(json.dumps({"file": args.file, "x": args.x, "y": output.tolist()}))
    else:
        rows = np.reshape(args.x, (-1, row))
        alone = np.shape(output)[:1] == (len(rows),)  # else the file answers all rows at once
        for x, y in zip(rows, output, strict=True) if alone else [(rows, output)]:
            print(f"{_numbers(x)} -> {_numbers(y)}")
    return 0


def latency_command(args: argparse.Namespace) -> int:
    """Time files of one network beside its float32 twin."""
    try:
        found = latency(args.file, *args.others, batch=args.batch, threads=args.threads)
    except FileError:
        raise
    except ValueError as error:
        raise _UsageError(str(error)) from error
    if args.json:
        print(json.dumps(found.as_dict()))
        return 0
    from rich.console import Console
    from rich.table import Table

    table = Table("network", "milliseconds", "as fast as float32", "quartiles")
    for row in found.rows:
        table.add_row(row.name, f"{row.milliseconds:.3g}", f"{row.speed:.2f} x", f"{row.low:.2f} to {row.high:.2f}")
    Console().print(table)
    print(f"batch {found.batch}, {found.threads} threads, {found.rounds} rounds")
    return 0


def print_parity(report: ParityReport) -> None:
    """A table: one row an optimization level."""
    rows = [
        [
            level.level,
            f"{level.max_abs_diff:.3g}",
            f"{level.max_ulps:.2g}",
            f"{level.mean_abs_diff:.3g}",
            str(level.code_mismatches),
            str(level.outputs),
        ]
        for level in report.levels
    ]
    _print_table(["optimization level", "max |diff|", "ulps", "mean |diff|", "off", "outputs"], rows)


def print_audit(found: Audit) -> None:
    """A table of all tensors, and what the bytes of the file are."""
    rows = [
        [
            row.name,
            row.role,
            row.dtype,
            " x ".join(map(str, row.shape)) or "scalar",
            f"{row.bytes:,}",
            "" if row.bits_per_weight is None else f"{row.bits_per_weight:.3g}",
            row.flag and f"<- {row.flag}",
        ]
        for row in found.rows
    ]
    _print_table(["tensor", "role", "dtype", "shape", "bytes", "bits a weight", ""], rows)
    parts = ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in found.parts.items())
    print(f"file {found.file_bytes:,} bytes: {parts}")
    over = found.file_bytes - found.minimum_bytes
    print(f"theoretical minimum {found.minimum_bytes:,} bytes, {over:,} less; in float32 {found.fp32_bytes:,}")


def _print_table(header: list[str], rows: list[list[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in [header, ["-" * width for width in widths], *rows]:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


class _UsageError(ValueError):
    pass


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=_program(), description="Check, look into or run an exported file.")
    commands = parser.add_subparsers(required=True, metavar="check|inspect|run|latency|pack")
    for name, command in (
        ("check", check_command),
        ("inspect", inspect_command),
        ("run", run_command),
        ("latency", latency_command),
        ("pack", pack_command),
    ):
        sub = commands.add_parser(name, help=command.__doc__, description=command.__doc__)
        sub.add_argument("file", metavar="FILE", help="where to write it" if name == "pack" else "an ONNX file")
        sub.add_argument("--json", action="store_true", help="print one JSON object")
        sub.set_defaults(command=command)
        if name in ("check", "latency"):
            sub.add_argument("--threads", type=int, default=1, metavar="N", help="within an operator (default: 1)")
        if name == "latency":
            sub.add_argument("others", metavar="FILE", nargs="*", help="the same network in other flavours")
            sub.add_argument("--batch", type=int, default=1, metavar="N", help="rows of an input (default: 1)")
        if name == "check":
            sub.add_argument("--provider", action="append", metavar="NAME", help="execution provider, preferred first")
            sub.add_argument(
                "--config", action="append", type=_parse_entry, metavar="KEY=VALUE", help="session configuration entry"
            )
        if name == "inspect":
            sub.add_argument("--svg", type=Path, metavar="DIR", help="draw the graph and all codes into this folder")
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


def _program() -> str:
    script = Path(sys.argv[0])
    return f"python {script.name}" if script.suffix == ".pyz" else "python -m export"


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
