"""`python -m export check|inspect|run|pack FILE`: what the engineer who was handed a file asks it.

Exit code 0: it holds. 1: it does not, with one sentence why. 2: the question was wrong.
"""

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from export.read.audit import audit_graph
from export.read.distance import ParityError
from export.read.files import FileError, file_bytes
from export.read.graph import Graph
from export.read.latency import latency
from export.read.numbers import arranged, from_npz
from export.read.pack import PAGES, pack
from export.read.receipt import ReceiptError, check, read
from export.read.report import draw, print_audit, print_latency, print_parity
from export.read.requires import raise_if_too_old
from export.read.runtime import InputsError, Setup, run, session


def main(argv: Sequence[str] | None = None) -> int:
    """Answer one command line; returns the exit code."""
    args, rest = _parser().parse_known_args(argv)
    if rest:
        args.named = _parse_named(args, rest)
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
        verdict = "the receipt does NOT hold" if not report.holds else "the receipt holds"
        if report.holds and report.rewritten:
            verdict = f"rewritten, answers kept ({report.rewritten}),"
        print(f"{args.file}: {verdict} on this machine (tolerance {report.tolerance:.3g})")
    for sentence in filter(None, (lost, *report.unmet)):
        print(f"{args.file}: {sentence}", file=sys.stderr)
    if not report.ok:
        worst = report.worst
        print(
            f"{args.file}: {worst.beyond_tolerance} of {worst.outputs} outputs differ at level {worst.level}, "
            + (f"by up to {worst.max_abs_diff:.3g}" if math.isfinite(worst.max_abs_diff) else "how far is not known"),
            file=sys.stderr,
        )
    return 0 if report.holds else 1


def inspect_command(args: argparse.Namespace) -> int:
    """List tensors, bytes and the receipt's settings; with --svg, draw the graph and the codes."""
    graph = Graph.open(args.file)
    found = audit_graph(graph, file_bytes(args.file))
    try:
        receipt, note = read(graph.model), ""
    except ReceiptError as error:
        receipt, note = None, str(error)
    pictures = [str(path) for path in draw(graph, Path(args.file), args.svg)] if args.svg else []
    if args.json:
        print(json.dumps({"file": args.file, **found.as_dict(), "receipt": receipt, "pictures": pictures}))
        return 0
    print_audit(found)
    print(f"receipt: {json.dumps({k: receipt.get(k) for k in ('versions', 'settings')})}" if receipt else note)
    for path in pictures:
        print(f"drawn: {path}")
    return 0


def pack_command(args: argparse.Namespace) -> int:
    """Write the checker itself as one file to hand on: check.pyz for Python, check.html for any browser."""
    pack(args.file)
    in_browser = args.file.lower().endswith(PAGES)
    advice = (
        "open it in a browser and drop a model on it" if in_browser else f"try `python {args.file} check MODEL.onnx`"
    )
    print(json.dumps({"file": args.file}) if args.json else f"{args.file}: {advice}")
    return 0


def run_command(args: argparse.Namespace) -> int:
    """Answer numbers with the file: --x for rows of a single input, --NAME or --npz for inputs by name."""
    raise_if_too_old(Graph.open(args.file))
    runtime = session(args.file)
    named = {**args.named, "x": args.x} if args.x and (args.named or args.npz) else args.named
    if named or args.npz or args.x is None:
        return _run_named(args, runtime, named)
    if len(runtime.get_inputs()) != 1:
        names = " ".join(f"--{node.name} ..." for node in runtime.get_inputs())
        raise _UsageError(f"{args.file} has {len(runtime.get_inputs())} inputs; expected {names} or --npz FILE")
    taken = runtime.get_inputs()[0]
    shape = taken.shape[1:]
    row = math.prod(shape) if all(isinstance(size, int) for size in shape) else 0
    if taken.type != "tensor(float)" or row < 1:
        raise _UsageError(
            f"{args.file} takes {taken.type} with rows of shape {shape}; --x is for tensor(float) in rows of a fixed "
            f"size; expected --{taken.name} 1,2,3 or --npz FILE"
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


def _run_named(args: argparse.Namespace, runtime: ort.InferenceSession, named: Mapping[str, Sequence[float]]) -> int:
    inputs = arranged(runtime.get_inputs(), named, from_npz(args.npz) if args.npz else {})
    outputs = dict(zip((node.name for node in runtime.get_outputs()), run(runtime, inputs), strict=True))
    if args.json:
        print(json.dumps({"file": args.file, "outputs": {name: y.tolist() for name, y in outputs.items()}}))
    else:
        for name, y in outputs.items():
            print(f"{name} {list(y.shape)}: {_numbers(y)}")
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
    print_latency(found)
    return 0


class _UsageError(ValueError):
    pass


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=_program(), description="Check, look into or run an exported file.")
    commands = parser.add_subparsers(required=True, metavar="check|inspect|run|latency|pack")
    for command in (check_command, inspect_command, run_command, latency_command, pack_command):
        name = command.__name__.removesuffix("_command")
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
            sub.add_argument("--x", type=_parse_numbers, metavar="0.5,1.0", help="rows of the only input")
            sub.add_argument("--npz", type=Path, metavar="FILE", help="inputs by name, from numpy.savez")
            sub.set_defaults(named={})
            sub.epilog = "--NAME 1,2,3 is for the input of that name, such as --input_ids 101,7592,102"
    return parser


def _parse_named(args: argparse.Namespace, rest: Sequence[str]) -> dict[str, list[float]]:
    """--NAME 1,2,3 or --NAME=1,2,3, for `run` alone."""
    words = [part for word in rest for part in (word.split("=", 1) if word.startswith("--") else [word])]
    names, values = words[::2], words[1::2]
    if args.command is not run_command or len(names) != len(values) or not all(n.startswith("--") for n in names):
        _parser().error(f"unrecognized arguments: {' '.join(rest)}")
    try:
        return {name[2:]: _parse_numbers(text) for name, text in zip(names, values, strict=True)}
    except argparse.ArgumentTypeError as error:
        return _parser().error(str(error))


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
