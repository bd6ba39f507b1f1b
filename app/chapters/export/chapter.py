"""Chapter: the QAT network as an ONNX file, down to its last nibble."""

import base64
import hashlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from app.components.code import prose
from app.components.module import module_view
from app.runs.exported import Exported, export_now, with_quick
from app.runs.messages import to_json
from app.runs.progress import Progress
from app.session import Session, up_to_date
from app.settings import NAMES
from export import ParityError
from export.read.audit import audit_graph
from export.read.codes import PackedTensor
from export.read.draw.nibbles import offset_of
from export.read.draw.picture import graph_svg
from export.read.graph import Graph

HERE = Path(__file__).parent
TITLE = "Export"
LEAD = "Take the quantized network home as an ONNX file, and read its bytes down to the last code."
USES = NAMES
CODES_SHOWN = 4096  # of one weight: a map of 64 x 64


def build(session: Session) -> None:
    """Draw the chapter."""
    with gr.Row(elem_classes="chapter wide"):
        with gr.Column(elem_classes="text"):
            prose(HERE / "text.md")
        with gr.Column(elem_classes="picture"):
            with gr.Row(elem_classes="line"):
                export = gr.Button("Export", variant="primary", elem_id="export")
                download = gr.DownloadButton("Download", interactive=False, elem_id="download")
                quick = gr.DownloadButton("Download, flavour ort", interactive=False, elem_id="download-ort")
            view = module_view(HERE / "export.js", to_json({"words": NOTHING_YET}), elem_id="exported")

    export.click(
        export_file,
        [session.exported, session.progress, *session.settings],
        [view, session.exported, export, download, quick],
        show_progress="hidden",
        preprocess=False,  # `Settings` checks the values
        concurrency_id="export",
        concurrency_limit=1,
    )


NOTHING_YET = "No file yet. Export writes the QAT network as it is at this moment, trained or not."


def export_file(exported: Exported | None, progress: Progress, *settings: Any) -> Iterator[tuple[Any, ...]]:
    """Export the network as it is at this moment.

    The file lies in a folder of its own until Gradio has taken the copy that Download gives, which is when the last
    yield returns.
    """
    busy = to_json({"words": "Exporting takes a few seconds.", "busy": True})
    yield busy, exported, gr.Button(interactive=False), gr.skip(), gr.DownloadButton(interactive=False)
    try:
        progress = up_to_date(progress, settings)
        made = export_now(progress)
    except (ValueError, ParityError) as error:
        failed = to_json({"words": f"Nothing was exported: {error}.", "problem": True})
        can_download = bool(exported and exported.quick)
        yield failed, exported, gr.Button(interactive=True), gr.skip(), gr.DownloadButton(interactive=can_download)
        return
    with made.on_disk() as path:
        download = gr.DownloadButton(value=path, interactive=True)
        yield frame(made, path), made, gr.Button(interactive=False), download, gr.skip()
    made = with_quick(made, progress)
    with made.on_disk() as path:
        twin = path.with_name(made.quick_name)
        quick = gr.DownloadButton(value=twin if twin.exists() else None, interactive=twin.exists())
        yield frame(made, path), made, gr.Button(interactive=True), gr.skip(), quick


def frame(exported: Exported, path: Path) -> str:
    """What `export.js` draws."""
    graph, file = Graph.open(path), exported.model
    sizes = audit_graph(graph, len(file))
    words = f"{exported.name}: {exported.label}."
    if not exported.step:
        words += " It has learned nothing yet: press Run in the chapter QAT, then export again."
    words += f" It is {exported.report.speed}."
    if exported.quick and exported.quick_report:
        size, fast = f"{len(exported.quick):,} bytes", exported.quick_report.speed
        words += f" Its twin for quick kernels, the flavour ort, takes {size} and is {fast}."
    elif exported.why_not_quick:
        words += f" There is no flavour ort of it: {exported.why_not_quick}."
    return to_json(
        {
            "words": words,
            "file": hashlib.sha256(exported.model).hexdigest(),
            "label": exported.label,
            "sizes": {
                **sizes.parts,
                "file": sizes.file_bytes,
                "minimum": sizes.minimum_bytes,
                "fp32": sizes.fp32_bytes,
            },
            "graph": graph_svg(graph, path.name),
            "weights": [weight(tensor, offset_of(tensor.tensor, file)) for tensor in graph.packed.values()],
        }
    )


def weight(tensor: PackedTensor, offset: int | None) -> dict[str, Any]:
    """The first bytes of a weight as they lie in the file, and the numbers that the codes stand for."""
    shown = min(tensor.elements, CODES_SHOWN)
    data = tensor.data[: math.ceil(shown * tensor.bits / 8)]
    return {
        "name": tensor.name,
        "dtype": tensor.dtype,
        "bits": tensor.bits,
        "shape": tensor.shape,
        "elements": tensor.elements,
        "offset": offset,
        "bytes": base64.b64encode(data).decode(),
        "values": base64.b64encode(tensor.values[:shown].astype(np.dtype("<f4")).tobytes()).decode(),
    }
