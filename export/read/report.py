"""What was found in a file, for people: tables in a terminal, pictures in a folder."""

import re
from pathlib import Path

from export.read.audit import Audit
from export.read.compare import ParityReport
from export.read.draw.nibbles import nibbles_svg, offset_of
from export.read.draw.picture import graph_svg
from export.read.files import FileError
from export.read.graph import Graph
from export.read.latency import Latency

NOT_IN_A_FILE_NAME = r"[^\w.-]"


def print_parity(report: ParityReport) -> None:
    """A table: one row an optimization level."""
    rows = [
        [
            level.level,
            f"{level.max_abs_diff:.3g}",
            f"{level.max_ulps:.2g}",
            f"{level.mean_abs_diff:.3g}",
            str(level.beyond_tolerance),
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


def print_latency(found: Latency) -> None:
    """A table: one row a file, float32 first."""
    rows = [
        [row.name, f"{row.milliseconds:.3g}", f"{row.speed:.2f} x", f"{row.low:.2f} to {row.high:.2f}"]
        for row in found.rows
    ]
    _print_table(["network", "milliseconds", "as fast as float32", "quartiles"], rows)
    print(f"batch {found.batch}, {found.threads} threads, {found.rounds} rounds")


def draw(graph: Graph, file: Path, folder: Path) -> list[Path]:
    """The graph of a file and the codes of each of its quantized tensors, as SVG pictures in a folder.

    Raises:
        FileError: the folder cannot be written.
    """
    pictures, data, paths = {"graph": graph_svg(graph, file.name)}, file.read_bytes(), []
    for name, tensor in graph.packed.items():
        pictures[name] = nibbles_svg(tensor, offset_of(tensor.tensor, data))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in pictures.items():
            paths.append(folder / f"{file.stem}.{re.sub(NOT_IN_A_FILE_NAME, '_', name)}.svg")
            paths[-1].write_text(text, encoding="utf-8")
    except OSError as error:
        raise FileError(f"cannot write {folder}: {error.strerror or error}") from error
    return paths


def _print_table(header: list[str], rows: list[list[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in [header, ["-" * width for width in widths], *rows]:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
