"""Points of your own: what is accepted, and how they are read from a CSV file."""

import csv
import re
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

Points = tuple[tuple[float, float], ...]

FEWEST, MOST = 4, 2000
MOST_BYTES = 1_000_000
LARGEST = 1e30  # squares of the network's sums still fit into float32
FINEST = 1e-4  # narrower than this share of its largest value, and float32 cannot tell one x from the next
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?(nan|inf|infinity)", re.ASCII | re.IGNORECASE)
DATE = re.compile(r"\d{4}[-/]\d{2}[-/]\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?Z?)?", re.ASCII)
SECONDS_A_DAY = 24 * 3600
SAID = re.compile(r"sep=([;,\t| ])", re.IGNORECASE)  # the first line, as spreadsheets write it
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


class Reading(NamedTuple):
    """What a file held.

    Attributes:
        points: of it.
        note: what a reader should know of how they were found; mostly nothing.
    """

    points: Points
    note: str


def load_csv(path: str | Path, columns: tuple[str, str] | None = None) -> Reading:
    """The points of a CSV file; its size is looked at before it is read.

    Raises:
        ValueError: as `read_csv`.
        OSError: the file cannot be read.
    """
    path = Path(path)
    _check_size(path.stat().st_size, path.name)
    return read_csv(path.read_bytes(), path.name, columns)


def parse_csv(data: bytes, name: str, columns: tuple[str, str] | None = None) -> Points:
    """Points from CSV text; what is done to them is not said here: see `read_csv`.

    Raises:
        ValueError: as `read_csv`.
    """
    return read_csv(data, name, columns).points


def read_csv(data: bytes, name: str, columns: tuple[str, str] | None = None) -> Reading:
    """Points from CSV text: two columns, x and y, with or without a header.

    The separator is a comma, semicolon, tab or spaces, or what a first line `sep=;` says; with another separator than a
    comma, numbers may have decimal commas. UTF-8, with or without a byte order mark. Lines that begin with # are
    comments; lines with a blank cell are left out; dates become days since the first; more than 2,000
    points are thinned.

    Args:
        columns: the names in the header, or the numbers from 1 on, of x and y; by default the first two that hold
            numbers, or a date and a number.

    Raises:
        ValueError: that is not what was found; the message names the line, what is there and what was expected.
    """
    _check_size(len(data), name)
    header, rows = _table(_decode(data, name), name)
    x, y = _chosen(header, rows, name, columns)
    points: list[tuple[float, float]] = []
    blank = dates = 0
    for line, cells in rows:
        where = f"{name}, line {line}"
        if max(x, y) >= len(cells):
            plural = "" if len(cells) == 1 else "s"
            raise ValueError(f"{where} has {len(cells)} column{plural}, {_short(cells)}; {EXPECTED}")
        if not (cells[x] and cells[y]):
            blank += 1
            continue
        is_date = DATE.fullmatch(cells[x])
        dates += is_date is not None
        across = _days(cells[x], f"{where}: x") if is_date else _number(cells[x], f"{where}: x")
        points.append((across, _number(cells[y], f"{where}: y")))
    found = len(points)
    if dates not in (0, found):
        raise ValueError(f"{name}: {dates:,} of {found:,} x are dates, the others are not; expected one or the other")
    if dates:  # from the first one on: float32 cannot tell minutes of days since 1970 apart
        begin = min(x for x, _ in points)
        points = [(x - begin, y) for x, y in points]
    if found > MOST:
        points = [points[i * found // MOST] for i in range(MOST)]
    try:
        check_points(points)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    notes = []
    if columns or max(len(header), *(len(_trimmed(cells)) for _, cells in rows[:1])) > 2:
        notes.append(f"x is {_called(header, x)} and y is {_called(header, y)}")
    if dates:
        notes.append(f"x is days since {datetime(1970, 1, 1) + timedelta(days=begin):%Y-%m-%d}")
    if blank:
        notes.append(f"{blank:,} line{'' if blank == 1 else 's'} with a blank cell left out")
    if found > MOST:
        notes.append(f"{MOST:,} of {found:,} points kept, evenly spread over the file")
    return Reading(tuple(points), "; ".join(notes))


def _table(text: str, name: str) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The header, [] if there is none, and the rows below it with their line numbers."""
    rows = list(_rows(text, name))
    if rows and len(rows[0][1]) > 1 and not any(_is_value(cell) for cell in rows[0][1]):
        return _trimmed(rows[0][1]), rows[1:]
    return [], rows


def _trimmed(cells: list[str]) -> list[str]:
    """Without the separators that spreadsheets leave at the end."""
    return cells[: max((i for i, cell in enumerate(cells, 1) if cell), default=0)]


def _chosen(
    header: list[str], rows: list[tuple[int, list[str]]], name: str, columns: tuple[str, str] | None
) -> tuple[int, int]:
    """The places of x and y."""
    if columns:
        return _place(header, rows, name, columns[0]), _place(header, rows, name, columns[1])
    if not rows:
        return 0, 1
    first = rows[0][1]
    if len(_trimmed(first)) <= 2 and len(header) <= 2:
        return 0, 1
    hold = [i for i, cell in enumerate(first) if not cell or NUMBER.fullmatch(cell)]
    dated = [i for i, cell in enumerate(first) if DATE.fullmatch(cell)]
    hold = dated[:1] + [i for i in hold if not dated or i > dated[0]]
    if len(hold) < 2:
        plural = "" if len(hold) == 1 else "s"
        raise ValueError(f"{name}, line {rows[0][0]}: {len(hold)} column{plural} of numbers; {EXPECTED}")
    return hold[0], hold[1]


def _place(header: list[str], rows: list[tuple[int, list[str]]], name: str, wanted: str) -> int:
    width = len(rows[0][1]) if rows else len(header)
    if wanted in header:
        return header.index(wanted)
    if wanted.isascii() and wanted.isdigit() and 1 <= int(wanted) <= width:
        return int(wanted) - 1
    known = ", ".join(header) if header else f"1 to {width}"
    raise ValueError(f"{name} has no column {_short(wanted)}; expected one of {known:.80}")


def _called(header: list[str], place: int) -> str:
    return repr(header[place])[:42] if place < len(header) else f"column {place + 1}"


def _is_value(cell: str) -> bool:
    return bool(NUMBER.fullmatch(cell) or DATE.fullmatch(cell))


def _days(cell: str, where: str) -> float:
    """Of a date, since 1970."""
    try:
        moment = datetime.fromisoformat(cell.replace("/", "-"))
    except ValueError:
        raise ValueError(f"{where}={_short(cell)} is no day of the calendar; {EXPECTED}") from None
    return (moment.replace(tzinfo=None) - datetime(1970, 1, 1)).total_seconds() / SECONDS_A_DAY


def _number(cell: str, where: str) -> float:
    if not NUMBER.fullmatch(cell):
        raise ValueError(f"{where}={_short(cell)} is not a number; {EXPECTED}")
    if not abs(float(cell)) <= LARGEST:
        raise ValueError(f"{where}={_short(cell)}; expected a finite number of at most {LARGEST:g}")
    return float(cell)


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
        raise ValueError(
            f"{name} is not UTF-8 text: {found}; expected CSV text in UTF-8: save it again as CSV UTF-8, or, "
            f"if it is Latin-1, iconv -f latin1 -t utf8"
        ) from None


def _rows(text: str, name: str) -> Iterator[tuple[int, list[str]]]:
    """Line number and cells of every line that is neither blank nor a comment; decimal commas become points."""
    lines = ["" if line.lstrip().startswith("#") else line for line in text.splitlines()]
    at = next((i for i, line in enumerate(lines) if line.strip()), None)
    if at is None:
        raise ValueError(f"{name} has only blank lines; {EXPECTED}")
    if said := SAID.fullmatch(lines[at].strip()):
        separator, lines[at] = said[1], ""
    else:
        separator = next((s for s in SEPARATORS if s in lines[at].strip()), ",")
    if separator == " ":
        lines = [" ".join(line.split()) for line in lines]
    reader = csv.reader(lines, delimiter=separator, skipinitialspace=True, strict=True)
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
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
