"""The shape of two of the tables: a line for each recipe of each contender, a column for each width."""

from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.contenders import CONTENDERS
from benchmarks.markdown import table

Row = dict[str, Any]


def by_width(
    rows: dict[str, list[Row]], widths: Sequence[int], cell: Callable[[Row], str], *first: Sequence[str]
) -> str:
    """The table, below the lines given as `first`; a row that failed shows its message."""
    lines = list(first)
    for name, found in rows.items():
        for recipe in dict.fromkeys(row["recipe"] for row in found):
            cells = {
                row["width"]: row["failed"] if "failed" in row else cell(row)
                for row in found
                if row["recipe"] == recipe
            }
            lines.append([CONTENDERS[name].title, recipe, *(cells.get(width, "-") for width in widths)])
    return table(["contender", "recipe", *(f"width {width}" for width in widths)], lines)
