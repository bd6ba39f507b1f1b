"""Chapter: the QAT network as an ONNX file, its proof, and its answers."""

import math
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from app.lab.data import Sine
from app.lab.fit import Experiment, Settings
from app.progress import DEVICE, Progress
from app.shared import HOUR, Shared, up_to_date
from app.turns import turn
from app.view import module_view, prose, rounded, to_json
from export import ParityError, ParityReport, audit, export_onnx
from export.runtime import run, session

KEY, TITLE = "take_home", "Take it home"

LARGEST_FLOAT32 = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Exported:
    """The visitor's file: the bytes that Download gives and that onnxruntime answers from.

    Attributes:
        progress: what it was made from.
        model: the file itself.
    """

    progress: Progress
    model: bytes

    def answer(self, xs: list[float]) -> list[float]:
        """onnxruntime on the file, in a default session."""
        batch = np.array(xs, dtype=np.float32).reshape(-1, 1)
        (outputs,) = run(session(self.model), [batch])
        return [float(y) for y in outputs.ravel()]


def build(shared: Shared) -> None:
    """Draw the chapter."""
    prose(__file__)
    exported = gr.State(None, time_to_live=HOUR)
    with gr.Row(elem_id="take-home"):
        with gr.Column():
            with gr.Row(elem_classes="line"):
                export = gr.Button("Export", variant="primary", elem_id="export")
                download = gr.DownloadButton("Download", interactive=False, elem_id="download")
            receipt = module_view("receipt.js", to_json({"words": "No file yet."}), elem_id="receipt")
        with gr.Column():
            with gr.Row(elem_classes="line"):
                x = gr.Textbox("0.5", label="x", max_lines=1, elem_id="x")
                ask = gr.Button("Ask onnxruntime", elem_id="ask")
            answer = module_view("answer.js", answer_frame(None, "Export first, then ask the file."), elem_id="answer")

    export.click(
        export_file,
        [exported, shared.progress, *shared.settings],
        [receipt, answer, exported, export, download],
        show_progress="hidden",
        preprocess=False,  # `Settings` checks the values
        concurrency_id="export",
        concurrency_limit=1,
    )
    gr.on(
        [ask.click, x.submit],
        ask_file,
        [x, exported, shared.progress],
        answer,
        show_progress="hidden",
        trigger_mode="always_last",
    )


def export_file(exported: Exported | None, progress: Progress, *settings: Any) -> Iterator[tuple[Any, ...]]:
    """Export the network as it is at this moment.

    The file lies in a folder of its own until Gradio has taken the copy that Download gives, which is
    when the last yield returns.
    """
    busy = to_json({"words": "Exporting: this takes about three seconds."})
    yield busy, gr.skip(), exported, gr.Button(interactive=False), gr.skip()
    with tempfile.TemporaryDirectory(prefix="qat-") as folder:
        try:
            progress = up_to_date(progress, settings)
            path = Path(folder) / file_name(progress)
            report = write(progress, path)
        except (ValueError, ParityError) as error:
            failed = to_json({"words": f"Nothing was exported: {error}.", "problem": True})
            yield failed, gr.skip(), exported, gr.Button(interactive=True), gr.skip()
            return
        exported = Exported(progress, path.read_bytes())
        yield (
            receipt_frame(progress, path, report),
            answer_frame(exported, f"The curve is what the file answers: {progress.label}."),
            exported,
            gr.Button(interactive=True),
            gr.DownloadButton(value=path, interactive=True),
        )


def write(progress: Progress, path: Path) -> ParityReport:
    """The QAT network as a file whose parity is proved on every point of the data and of the chart."""
    with turn():
        experiment = Experiment.restore(progress.snapshot, DEVICE)
        return export_onnx(experiment.models["qat"], experiment.task.examples, path)


def file_name(progress: Progress) -> str:
    settings = progress.settings
    return f"sine_int{settings.bits:g}_{settings.granularity}_seed{settings.seed}_step{progress.step}.onnx"


def ask_file(text: str, exported: Exported | None, progress: Progress) -> str:
    """What the file answers to the x that was typed, as a sentence and a point on the chart."""
    if exported is None:
        return answer_frame(None, "There is no file to ask yet: press Export first.", problem=True)
    try:
        x = parse_number(text)
    except ValueError as error:
        return answer_frame(exported, f"{error}.", problem=True)
    (y,) = exported.answer([x])
    words = f"For x = {x:g} the file answers {y:.6g}; the sine without noise is {math.sin(2 * x):.6g}."
    if abs(x) > math.pi:
        words += " That x is beyond the chart and beyond all it was trained on."
    words += moved_on(exported.progress, progress)
    return answer_frame(exported, words, point={"x": x, "y": y})


def moved_on(of_file: Progress, on_page: Progress) -> str:
    """Says so when the file is not of the network that the page shows."""
    if of_file.settings != on_page.settings:
        return f" The file is of {of_file.label}; the page has moved on to {on_page.label}."
    if of_file.step != on_page.step:
        return f" The file is of step {of_file.step:,}; training has moved on to step {on_page.step:,}."
    return ""


def parse_number(text: str) -> float:
    """A number that float32 can hold.

    Raises:
        ValueError: it is not one; the message names it and what was expected.
    """
    try:
        x = float(text)
    except ValueError:
        raise ValueError(f"x={text.strip()!r} is not a number; expected one such as 0.5 or -1.2") from None
    if not abs(x) <= LARGEST_FLOAT32:
        raise ValueError(f"x={text.strip()!r} is out of range; expected a finite float32 number such as 0.5")
    return x


def receipt_frame(progress: Progress, path: Path, report: ParityReport) -> str:
    """What `receipt.js` draws."""
    sizes = audit(path)
    return to_json(
        {
            "words": f"{path.name} is of {progress.label}.",
            "label": progress.label,
            "levels": [{**asdict(level), "ok": level.code_mismatches == 0} for level in report.levels],
            "tolerance": report.tolerance,
            "file_bytes": sizes.file_bytes,
            "code_bytes": sizes.code_bytes,
            "fp32_bytes": sizes.fp32_bytes,
        }
    )


def answer_frame(
    exported: Exported | None, words: str, point: dict[str, float] | None = None, problem: bool = False
) -> str:
    """What `answer.js` draws: the sine, the file's own curve, and the point that was asked for."""
    settings = exported.progress.settings if exported else Settings()
    data = Sine.sample(settings.noise, settings.seed)
    grid = data.grid.flatten().tolist()
    return to_json(
        {
            "words": words,
            "problem": problem,
            "point": point,
            "curve": rounded(exported.answer(grid)) if exported else None,
            "noisy": rounded(data.y.flatten().tolist(), 2),
            "clean": rounded(data.clean.flatten().tolist()),
        }
    )
