"""Points of your own: what is accepted, and how they are read from a CSV file."""

import csv
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

Points = tuple[tuple[float, float], ...]

FEWEST, MOST = 4, 2000
MOST_BYTES = 1_000_000
LARGEST = 1e30  # squares of the network's sums still fit into float32
FINEST = 1e-4  # narrower than this share of its largest value, and float32 cannot tell one x from the next
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?(nan|inf|infinity)", re.ASCII | re.IGNORECASE)
SEPARATORS = {";": "semicolon", "\t": "tab", ",": "comma", " ": "space"}  # the first that the first line has
EXPECTED = "expected two columns of numbers, x and y"


def check_points(points: Sequence[Sequence[float]]) -> None:
    """Raises ValueError, naming what was found and what was expected, unless a network can be fitted to the points."""
    if not FEWEST <= len(points) <= MOST:
        plural = "" if len(points) == 1 else "s"
        raise ValueError(f"{len(points):,} point{plural}; expected from {FEWEST} to {MOST:,}")
    for n, point in enumerate(points, 1):
        for name, value in zip("xy", point, strict=True):
            if not abs(value) <= LARGEST:
                raise ValueError(f"point {n} has {name}={value}; expected a finite number of at most {LARGEST:g}")
    xs = [x for x, _ in points]
    low, high = min(xs), max(xs)
    if low == high:
        raise ValueError(f"every x is {low:g}; expected at least two that differ")
    largest = max(-low, high)
    if high - low < FINEST * largest:
        raise ValueError(
            f"x goes from {low!r} to {high!r}; expected a range of at least {FINEST * largest:g}, since float32 "
            f"cannot tell closer ones apart: subtract what they have in common"
        )


def load_csv(path: str | Path) -> Points:
    """The points of a CSV file; its size is looked at before it is read.

    Raises:
        ValueError: as `parse_csv`.
        OSError: the file cannot be read.
    """
    path = Path(path)
    _check_size(path.stat().st_size, path.name)
    return parse_csv(path.read_bytes(), path.name)


def parse_csv(data: bytes, name: str) -> Points:
    """Points from CSV text: two columns, x and y, with or without a header.

    The separator is a comma, semicolon, tab or spaces; with another separator than a comma, numbers may have decimal
    commas. UTF-8, with or without a byte order mark.

    Raises:
        ValueError: that is not what was found; the message names the line, what is there and what was expected.
    """
    _check_size(len(data), name)
    points: list[tuple[float, float]] = []
    for n, (line, cells) in enumerate(_rows(_decode(data, name), name)):
        where = f"{name}, line {line}"
        if len(cells) != 2:
            plural = "" if len(cells) == 1 else "s"
            raise ValueError(f"{where} has {len(cells)} column{plural}, {_short(cells)}; {EXPECTED}")
        if n == 0 and not any(NUMBER.fullmatch(cell) for cell in cells):
            continue  # a header
        for column, cell in zip("xy", cells, strict=True):
            if not NUMBER.fullmatch(cell):
                raise ValueError(f"{where}: {column}={_short(cell)} is not a number; {EXPECTED}")
            if not abs(float(cell)) <= LARGEST:
                raise ValueError(f"{where}: {column}={_short(cell)}; expected a finite number of at most {LARGEST:g}")
        points.append((float(cells[0]), float(cells[1])))
    try:
        check_points(points)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    return tuple(points)


def _check_size(size: int, name: str) -> None:
    if size > MOST_BYTES:
        raise ValueError(f"{name} has {size:,} bytes; expected at most {MOST_BYTES:,}")
    if size == 0:
        raise ValueError(f"{name} is empty; {EXPECTED}")


def _decode(data: bytes, name: str) -> str:
    """The text, without a byte order mark."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ValueError(f"{name} is UTF-16 text; expected UTF-8: save it again as CSV UTF-8")
    if data.startswith(b"PK\x03\x04"):
        raise ValueError(f"{name} is a zip archive, as spreadsheets are; expected CSV text: save it again as CSV")
    if b"\0" in data:
        raise ValueError(f"{name} is binary: byte {data.index(0) + 1} is zero; expected CSV text")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        found = f"byte {error.start + 1} is 0x{data[error.start]:02x}"
        raise ValueError(f"{name} is not UTF-8 text: {found}; expected CSV text in UTF-8") from None


def _rows(text: str, name: str) -> Iterator[tuple[int, list[str]]]:
    """Line number and cells of every line that is not blank; decimal commas become points."""
    lines = text.splitlines()
    first = next((line for line in lines if line.strip()), None)
    if first is None:
        raise ValueError(f"{name} has only blank lines; {EXPECTED}")
    separator = next((s for s in SEPARATORS if s in first.strip()), ",")
    if separator == " ":
        lines = [" ".join(line.split()) for line in lines]
    reader = csv.reader(lines, delimiter=separator, skipinitialspace=True, strict=True)
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            while len(cells) > 2 and not cells[-1]:  # spreadsheets leave separators at the end
                cells.pop()
            if any(cells):
                decimal = separator != ","
                yield reader.line_num, [_with_point(cell) if decimal else cell for cell in cells]
    except csv.Error as error:
        raise ValueError(f"{name}, line {reader.line_num}: {error}; {EXPECTED}") from None


def _with_point(cell: str) -> str:
    return cell.replace(",", ".") if cell.count(",") == 1 and "." not in cell else cell


def _short(found: object) -> str:
    """What was found, cut where it is endless."""
    text = repr(found)
    return text if len(text) <= 60 else text[:57] + "..."
