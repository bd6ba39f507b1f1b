"""What is read on the page: prose, the source that runs, settings as Python to paste."""

import ast
import inspect
import json
import textwrap
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexer import Lexer
from pygments.lexers import PythonLexer, get_lexer_for_filename

from qat_core import QATConfig, QuantSpec

ROOT = Path(__file__).resolve().parents[2]


def prose(text: Path) -> gr.Markdown:
    """A Markdown file of a chapter."""
    return gr.Markdown(text.read_text(encoding="utf-8"), elem_id=f"{text.parent.name}-{text.stem}")


def listing(*objects: Any) -> gr.HTML:
    """The source of functions and classes as it runs, in colour, under the name of the file it comes from."""
    return gr.HTML("".join(map(listed, objects)), apply_default_css=False, elem_classes="listing")


def whole_files(*paths: Path) -> gr.HTML:
    """Files in any language, as they lie there."""
    return gr.HTML("".join(map(whole_file, paths)), apply_default_css=False, elem_classes="listing")


def listed(item: Any) -> str:
    """One function or class as HTML."""
    file = Path(inspect.getfile(item)).resolve().relative_to(ROOT).as_posix()
    return _figure(f"{file}: {item.__qualname__}", coloured(inspect.getsource(item)))


def whole_file(path: Path) -> str:
    """One file as HTML."""
    text = path.read_text(encoding="utf-8")
    return _figure(path.relative_to(ROOT).as_posix(), coloured(text, get_lexer_for_filename(path.name)))


def _figure(title: str, code: str) -> str:
    """The scrolling part can be reached with the keyboard."""
    title = escape(title)
    return (
        f"<figure><figcaption>{title}</figcaption>"
        f'<pre tabindex="0" role="region" aria-label="{title}"><code>{code}</code></pre></figure>'
    )


def coloured(source: str, lexer: Lexer | None = None) -> str:
    """Python, if no lexer of another language is given, as HTML; its text is the source itself."""
    lexer = lexer or PythonLexer(stripnl=False, ensurenl=False)
    html: str = highlight(source, lexer, HtmlFormatter(nowrap=True))
    return html if source.endswith("\n") else html.removesuffix("\n")


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


def spec_source(spec: QuantSpec) -> str:
    """The spec as a call."""
    return str(spec).replace("'", '"')


def config_source(config: QATConfig | None) -> str:
    """The config as a call, an override a line."""
    if config is None:
        return "None"
    tensors = f"weight={spec_source(config.weight)}"
    if config.activation is not None:
        tensors += f", activation={spec_source(config.activation)}"
    if not config.overrides:
        return f"QATConfig({tensors})"
    overrides = "".join(f"        {json.dumps(g)}: {config_source(c)},\n" for g, c in config.overrides.items())
    return f"QATConfig(\n    {tensors},\n    overrides={{\n{overrides}    }},\n)"
