"""The frame of the page: header, shared settings, chapters, theme."""

import gradio as gr
import torch

from app import shared
from app.chapters import one_step, take_home, training
from app.lab.fit import Settings
from app.view import STATIC, prose

TITLE = "Quantization-aware training, step by step"
CHAPTERS = (one_step, training, take_home)
VISITORS_IN_LINE = 100
DAY = 24 * 3600

FONTS = ("Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif")  # of the visitor's machine: none is fetched
MONO = ("SFMono-Regular", "Menlo", "Consolas", "monospace")


def build() -> gr.Blocks:
    """The whole page."""
    gr.set_static_paths(STATIC)
    page = gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(DAY, DAY))
    with page:
        prose(__file__)
        common = shared.build(Settings())
        for chapter in CHAPTERS:
            chapter.build(common)
    page.queue(max_size=VISITORS_IN_LINE, default_concurrency_limit=None)
    return page


def serve(host: str, port: int) -> None:
    """Answer visitors until interrupted; on tensors this small a second torch thread only gets in the way."""
    torch.set_num_threads(1)
    page = build()
    print(f"Open http://{host}:{port} (Ctrl+C ends it)", flush=True)
    page.launch(
        server_name=host,
        server_port=port,
        theme=theme(),
        css_paths=sorted(STATIC.glob("*.css")),
        footer_links=["gradio"],
        ssr_mode=False,
        quiet=True,
    )


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
        checkbox_background_color_selected="*primary_700",
        checkbox_background_color_selected_dark="*primary_600",
        slider_color="*primary_700",
        slider_color_dark="*primary_600",
    )
