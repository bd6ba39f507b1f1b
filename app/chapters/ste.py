"""Chapter: the gradient that is put in the place of the stairs' own. It runs in the browser."""

from pathlib import Path

import gradio as gr

from app.shared import Shared
from app.view import listing, module_view, prose, to_json
from qat_core import STEQuantize
from qat_core.lsq import LSQuantize
from qat_core.ste import where_not_clamped

KEY = "ste"
TITLE = "The straight-through estimator"
USES = ()  # no setting of the page


def build(shared: Shared) -> None:
    """Draw the chapter: the estimator, its code, the learned scale, its code."""
    here = Path(__file__)
    with gr.Row(elem_classes="chapter wide"):
        with gr.Column(elem_classes="text"):
            prose(__file__)
        with gr.Column(elem_classes="picture"):
            module_view("ste.js", to_json({}), elem_id="ste")
    listing(STEQuantize, where_not_clamped)
    with gr.Row(elem_classes="chapter"):
        with gr.Column(elem_classes="text"):
            prose(str(here.with_name("ste_lsq.py")))
        with gr.Column(elem_classes="picture"):
            module_view("lsq.js", to_json({}), elem_id="lsq")
    listing(LSQuantize)
