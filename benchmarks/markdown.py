"""Markdown for the tables."""

from collections.abc import Iterable, Sequence


def table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; every row has a cell for each header."""
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (headers, ["---"] * len(headers), *rows))


def details(summary: str, body: str) -> str:
    """What only some readers want."""
    return f"<details><summary>{summary}</summary>\n\n{body}\n\n</details>"
