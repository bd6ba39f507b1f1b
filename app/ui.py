"""The frame of the page: chapters, of which one is open, their shared settings, theme."""

import html
import importlib
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any, NoReturn

import gradio as gr
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware

from app import session, training
from app.chapters import CHAPTERS, FOLDER
from app.components.module import STATIC, module_view, static_path
from app.faults import told_in_a_line
from app.gate import SERVER, Gate, is_alive
from app.handlers import THREADS, VISITORS_AT_ONCE
from app.lab import devices
from app.lab.points import MOST_BYTES
from app.runs.messages import to_json
from app.runs.queue import exclusive
from app.runs.run import pause_run, stop_all
from app.settings import CHOICES, DEFAULTS, NAMES, RANGES, WHOLE, parse_address
from export.read import web

PAGE = STATIC / "page"
HEAD_STYLE = PAGE / "head.css"  # which Gradio does not rewrite
TITLE = "Quantization-aware training, step by step"
KEYS = tuple(chapter.key for chapter in CHAPTERS)
VISITORS_IN_LINE = 100
DAY = 24 * 3600
SECONDS_TO_END = 2.0
SECONDS_A_LOOK = 2.0  # at the queue
SESSIONS = VISITORS_AT_ONCE  # whose state is kept: some 0.35 MB each, most of it Gradio's own (docs/upstream.md)

FONTS = ("Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif")  # of the visitor's machine: none is fetched
MONO = ("SFMono-Regular", "Menlo", "Consolas", "monospace")


class Page(gr.Blocks):
    """Without Gradio's heartbeat, which holds one of the six connections that a browser has for each open tab.

    It would end the runs of a tab that is closed, which the end of their own stream does, too.
    """

    def get_config_file(self) -> Any:
        return {**super().get_config_file(), "connect_heartbeat": False}


def build() -> gr.Blocks:
    """The whole page."""
    # file by file: no Python is served
    gr.set_static_paths([STATIC, *FOLDER.glob("*/*.js"), *web.FOLDER.glob("*.js"), web.runtime.folder()])
    page = Page(title=TITLE, analytics_enabled=False, delete_cache=(DAY, DAY))
    with page, gr.Row(elem_id="frame"):
        nav = module_view(PAGE / "nav.js", TITLE, elem_id="nav")
        with gr.Column(elem_id="main"):
            heading = module_view(PAGE / "heading.js", to_json({"problems": []}), elem_id="heading")
            common = session.build()
            module_view(PAGE / "more_settings.js", to_json(DEFAULTS), elem_id="more-settings")
            for chapter in CHAPTERS:
                with gr.Column(elem_id=f"page-{chapter.key}", elem_classes="page"):
                    chapter.build(common)
            module_view(PAGE / "pager.js", "", elem_id="pager")

        hidden: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        opened = page.load(open_address, None, [heading, *common.settings], **hidden)
        opened.then(None, common.settings, js=session.PUBLISH, **hidden)
        left = nav.select(leave_chapter, trigger_mode="multiple", queue=False, **hidden)
        left.then(training.catch_up, common.progress, common.feed, **hidden)
    told_in_a_line(page)
    page.queue(max_size=VISITORS_IN_LINE, default_concurrency_limit=None, api_open=False)
    return page


def open_address(request: gr.Request) -> tuple[Any, ...]:
    """What the address says of the settings, and a notice of what it says wrongly.

    The others are left alone: the visitor may have changed one by now.
    """
    found = parse_address(dict(request.query_params), KEYS)
    return to_json({"problems": found.problems}), *(found.settings.get(name, gr.skip()) for name in NAMES)


def leave_chapter(request: gr.Request) -> None:
    """Another chapter was opened: a run that nobody sees stops where it is."""
    pause_run(request.session_hash)


def head() -> str:
    """What the page needs before Gradio is there: the list of chapters, and the module that opens one of them."""
    is_choice = len(CHOICES["device"]) > 1
    offered = [name for name in NAMES if name != "device" or is_choice]
    # A choice of devices is always in the address: another machine has other devices, and says which it lacks.
    catalogue = {
        "chapters": [
            {"key": c.key, "title": c.title, "lead": c.lead, "uses": [n for n in c.uses if n in offered]}
            for c in CHAPTERS
        ],
        "defaults": DEFAULTS | ({"device": None} if is_choice else {}),
        "ranges": {name: [*ends, name in WHOLE] for name, ends in RANGES.items()},
        "server": SERVER,
    }
    return f"""
<style>{HEAD_STYLE.read_text(encoding="utf-8")}</style>
<meta name="tutorial" content="{html.escape(TITLE)}">
<script type="application/json" id="catalogue">{json.dumps(catalogue).replace("<", "&lt;")}</script>
<script type="module" src="gradio_api/file={static_path(PAGE / "address.js")}"></script>
"""


def serve(host: str, port: int) -> NoReturn:
    """Answer visitors until interrupted; SIGTERM, with which a machine ends a server, does as Ctrl+C.

    A signal sets an event, and raises nothing: what it would be raised in, an import for one, may keep it to itself.
    """
    interrupted = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: interrupted.set())
    page = build()
    if devices.resident(DEFAULTS["device"]) != devices.CPU:
        print(f"Starting the GPU, once: {devices.title(DEFAULTS['device'])}.", flush=True)
        devices.start(DEFAULTS["device"])
    launch(page, host, port)
    print(f"Open http://{host}:{port} (Ctrl+C ends it)", flush=True)
    # so that the first to export need not wait for it
    threading.Thread(target=importlib.import_module, args=("export.write.exporter",), daemon=True).start()
    while not interrupted.wait(SECONDS_A_LOOK):
        if not is_alive(page):
            print("Gradio's queue has stopped and answers nobody: this process ends, to be started anew.", flush=True)
            os._exit(1)
    end()


def launch(page: gr.Blocks, host: str, port: int) -> None:
    """Begin to answer."""
    importlib.import_module("matplotlib.pyplot")  # Gradio does at the first event, and the first visitor would wait
    page.launch(
        server_name=host,
        server_port=port,
        theme=theme(),
        css_paths=style_sheets(),
        head=head(),
        footer_links=["gradio"],
        app_kwargs={"middleware": [Middleware(Gate, page=page), Middleware(GZipMiddleware, compresslevel=5)]},
        ssr_mode=False,
        max_file_size=MOST_BYTES,  # a CSV comes with an event of its own: see the chapter "your turn"
        quiet=True,
        prevent_thread_lock=True,
        max_threads=THREADS,
        state_session_capacity=SESSIONS,
        _frontend=False,  # do not ask the page for itself, and give up unless it answers within three seconds
    )


def end() -> NoReturn:
    """Leave as soon as nobody computes, or soon at any rate.

    Python would stop the threads of Gradio wherever they are. In the middle of torch, that is an abort.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)  # whoever asks twice does not wait
    stop_all()
    deadline = time.monotonic() + SECONDS_TO_END
    with exclusive(lambda: time.monotonic() < deadline):
        sys.stdout.flush()
        os._exit(0)


def style_sheets() -> list[Path]:
    """What chapters share comes first, so that a chapter may say otherwise."""
    shared = (sheet for sheet in STATIC.glob("*/*.css") if sheet != HEAD_STYLE)
    return [*sorted(shared), *sorted(FOLDER.glob("*/*.css"))]


def theme() -> gr.themes.Base:
    """Gradio's default in our colours, without the fonts that it would fetch."""
    return gr.themes.Default(
        primary_hue="green",
        neutral_hue="slate",
        font=[gr.themes.Font(name) for name in FONTS],
        font_mono=[gr.themes.Font(name) for name in MONO],
    ).set(
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
    )
