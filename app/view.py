"""Our ES modules as Gradio components: a module mounts once and then follows the JSON string it is sent."""

import inspect
import json
import math
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import gradio as gr
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

ROOT = Path(__file__).resolve().parents[1]
STATIC = Path(__file__).parent / "static"

# Resolved against the page's own address, so that it also works below a prefix.
MOUNT = """
const at = (path) => new URL('gradio_api/file=' + path, document.baseURI);
import(at('{view}')).then((view) => view.mount(at('{module}'), element, props, watch, trigger));
"""

# A click may come before the view is drawn, and waits for it then. A view that is out of sight is not waited for.
FROM_VIEW = """
async (_, ...others) => {{
  const view = document.querySelector('#{elem_id} .view');
  while (view?.offsetWidth && !view.dataset.{name}) await new Promise(requestAnimationFrame);
  return [view?.dataset.{name} ?? '', ...others];
}}
"""


def module_view(module: str, value: str, elem_id: str, **props: Any) -> gr.HTML:
    """A place on the page that `static/<module>` draws, given JSON strings; not before it is first seen.

    The template stays constant: with the value in it, Gradio would overwrite what the module drew. `props` are what
    the module needs once and for all.
    """
    return gr.HTML(
        value,
        html_template='<div class="view"></div>',
        js_on_load=MOUNT.format(view=static_path("view.js"), module=static_path(module)),
        apply_default_css=False,
        elem_id=elem_id,
        **props,
    )


def from_view(elem_id: str, name: str) -> str:
    """What `Handlers` puts in the place of the first input: what a view keeps in `data-<name>` until a click asks."""
    return FROM_VIEW.format(elem_id=elem_id, name=name)


def static_path(name: str) -> str:
    """Path of a file in `static/`, as it stands in an address."""
    return quote((STATIC / name).as_posix())


def to_json(value: dict[str, Any]) -> str:
    """Strict and compact."""
    return json.dumps(value, allow_nan=False, separators=(",", ":"))


def rounded(values: list[float], digits: int = 3) -> list[float | None]:
    """Short numbers for a curve; what cannot be drawn becomes a gap."""
    return [round(value, digits) if math.isfinite(value) else None for value in values]


def prose(page: str) -> gr.Markdown:
    """The Markdown that lies beside the Python file `page`."""
    text = Path(page).with_suffix(".md")
    return gr.Markdown(text.read_text(encoding="utf-8"), elem_id=f"chapter-{text.stem}")


def listing(*objects: Any) -> gr.HTML:
    """The source of functions and classes as it runs, in colour, under the name of the file it comes from."""
    return gr.HTML("".join(map(listed, objects)), apply_default_css=False, elem_classes="listing")


def listed(item: Any) -> str:
    """One function or class as HTML; the scrolling part can be reached with the keyboard."""
    file = Path(inspect.getfile(item)).resolve().relative_to(ROOT).as_posix()
    title = escape(f"{file}: {item.__qualname__}")
    code = coloured(inspect.getsource(item))
    return (
        f"<figure><figcaption>{title}</figcaption>"
        f'<pre tabindex="0" role="region" aria-label="{title}"><code>{code}</code></pre></figure>'
    )


def coloured(source: str) -> str:
    """Python as HTML; its text is the source itself."""
    html: str = highlight(source, PythonLexer(stripnl=False, ensurenl=False), HtmlFormatter(nowrap=True))
    return html if source.endswith("\n") else html.removesuffix("\n")
