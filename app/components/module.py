"""Our ES modules as Gradio components: a module mounts once and then follows the JSON string it is sent."""

from pathlib import Path
from typing import Any
from urllib.parse import quote

import gradio as gr

from app.components.code import prose

STATIC = Path(__file__).parents[1] / "static"

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


def module_view(module: Path, value: str, elem_id: str, **props: Any) -> gr.HTML:
    """A place on the page that the file `module` draws, given JSON strings; not before it is first seen.

    The template stays constant: with the value in it, Gradio would overwrite what the module drew. `props` are what
    the module needs once and for all.
    """
    return gr.HTML(
        value,
        html_template='<div class="view"></div>',
        js_on_load=MOUNT.format(view=static_path(STATIC / "page" / "view.js"), module=static_path(module)),
        apply_default_css=False,
        elem_id=elem_id,
        **props,
    )


def beside(text: Path, module: Path, elem_id: str, wide: bool = False) -> None:
    """Prose, and what it is about, which asks no server."""
    with gr.Row(elem_classes="chapter wide" if wide else "chapter"):
        with gr.Column(elem_classes="text"):
            prose(text)
        with gr.Column(elem_classes="picture"):
            module_view(module, "{}", elem_id)


def from_view(elem_id: str, name: str) -> str:
    """What `Handlers` puts in the place of the first input: what a view keeps in `data-<name>` until a click asks."""
    return FROM_VIEW.format(elem_id=elem_id, name=name)


def static_path(file: Path) -> str:
    """A file that is served, as it stands in an address."""
    return quote(file.as_posix())
