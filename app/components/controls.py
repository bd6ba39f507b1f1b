"""Gradio's controls, as the page has them."""

from collections.abc import Sequence
from typing import Any

import gradio as gr


def buttons(name: str, *titles: str) -> list[gr.Button]:
    """Buttons, the first for the chapter's main deed. All always work: the keyboard never loses its place."""
    return [
        gr.Button(title, variant="secondary" if i else "primary", elem_id=f"{name}-{title.lower()}")
        for i, title in enumerate(titles)
    ]


def choice(elem_id: str, label: str, options: Sequence[Any], value: Any, **more: Any) -> gr.Radio:
    """A few options side by side, each a value or its name and the value."""
    return gr.Radio(list(options), value=value, label=label, elem_id=elem_id, elem_classes="choice", **more)
