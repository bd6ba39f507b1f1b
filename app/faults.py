"""A fault of ours is a line in the log and a sentence for the visitor, and not a page of traceback a click."""

import functools
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.context import LocalContext

from app.runs.fair import NOBODY, Asked, each_on_behalf_of, on_behalf_of
from app.runs.queue import NobodyWaits

ROOT = Path(__file__).resolve().parents[1]
SENTENCE = "Something went wrong here, and it is not your doing. Reload the page; your settings are in its address."


def told_in_a_line(page: gr.Blocks) -> None:
    """From now on, for whatever the page's events call; it is computed on behalf of who asked."""
    for event in page.fns.values():
        if event.fn is not None:
            event.fn = in_a_line(event.fn)


def in_a_line(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function; what it raises by mistake is written in one line, and comes out as a sentence."""

    @functools.wraps(function)
    def call(*args: Any, **named: Any) -> Any:
        try:
            with on_behalf_of(asked()):
                return function(*args, **named)
        except Exception as error:
            raise said(error, function) from None

    @functools.wraps(function)
    def go_through(*args: Any, **named: Any) -> Iterator[Any]:
        try:
            yield from each_on_behalf_of(asked(), function(*args, **named))
        except Exception as error:
            raise said(error, function) from None

    return go_through if inspect.isgeneratorfunction(function) else call


def asked() -> Asked:
    """Who asks for what this thread does, and since when, as the gate has noted it."""
    request = LocalContext.request.get(None)
    return Asked(request.session_hash, getattr(request.state, "asked_at", None)) if request else NOBODY


def said(error: Exception, function: Callable[..., Any]) -> gr.Error:
    """Write the line; the sentence for the visitor."""
    if isinstance(error, gr.Error):
        return error
    if isinstance(error, NobodyWaits):
        return gr.Error("Nobody waits for this any more.", print_exception=False)
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if Path(frame.filename).is_relative_to(ROOT)]
    where = (ours or frames)[-1]
    name = getattr(function, "__name__", "an event")
    about = " ".join(f"{type(error).__name__}: {error}".split())
    print(f"fault in {name}, {Path(where.filename).name}:{where.lineno}: {about:.300}", file=sys.stderr, flush=True)
    return gr.Error(SENTENCE, print_exception=False)
