"""A few lines of the source that runs, some of them marked."""

import ast
import inspect
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

ROOT = Path(__file__).resolve().parent.parent


def excerpt(function: Callable[..., Any], *marked: str, around: int = 2) -> dict[str, Any]:
    """The lines of a function that contain the texts `marked`, and as many as `around` above and below each.

    Returns:
        file: relative to the repository, or to the folder that Python imports the package from.
        name: of the function.
        lines: [number, coloured HTML, is marked], dedented; a gap is [0, "...", False].

    Raises:
        LookupError: no line contains one of the texts.
    """
    source, first = inspect.getsourcelines(function)
    body = _first_line_of_code(source)
    found = [_line_with(text, source, function) for text in marked]
    shown = sorted({i for at in found for i in range(max(at - around, body), min(at + around + 1, len(source)))})
    texts = textwrap.dedent("".join(source[i].rstrip() + "\n" for i in shown)).splitlines()
    lines: list[tuple[int, str, bool]] = []
    for i, text in zip(shown, texts, strict=True):
        if lines and lines[-1][0] != first + i - 1:
            lines.append((0, "...", False))
        lines.append((first + i, highlight(text, PythonLexer(), HtmlFormatter(nowrap=True)).rstrip(), i in found))
    return {"file": _file(function), "name": function.__qualname__, "lines": lines}


def _first_line_of_code(source: list[str]) -> int:
    """After the docstring."""
    (definition,) = ast.parse(textwrap.dedent("".join(source))).body
    assert isinstance(definition, ast.FunctionDef)
    documented = ast.get_docstring(definition) is not None
    return int(definition.body[documented].lineno) - 1


def _line_with(text: str, source: list[str], function: Callable[..., Any]) -> int:
    at = [i for i, line in enumerate(source) if text in line]
    if not at:
        raise LookupError(f"no line of {function.__qualname__} contains {text!r}")
    return at[-1]


def _file(function: Callable[..., Any]) -> str:
    path = Path(inspect.getfile(inspect.unwrap(function))).resolve()
    if path.is_relative_to(ROOT) and "site-packages" not in path.parts:
        return path.relative_to(ROOT).as_posix()
    return Path(*path.parts[path.parts.index("site-packages") + 1 :]).as_posix()
