"""Chapter: does onnxruntime answer as PyTorch did, on any machine?"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import onnx

from app.chapters.onnxruntime.anywhere import answer
from app.chapters.onnxruntime.browser import addresses, at_hand, for_the_browser
from app.chapters.onnxruntime.speed import GROUP_SIZE, LAYERS, WIDTH, Speed, compare_speed, large_network
from app.components.code import listing, prose, whole_files
from app.components.module import module_view
from app.lab.data import Sine
from app.lab.fit import Settings
from app.runs.exported import Exported
from app.runs.messages import rounded, to_json
from app.runs.progress import Progress
from app.session import Session
from export import FileError, KernelError, ParityError, ParityReport, ReceiptError, check
from export.read.receipt import read

HERE = Path(__file__).parent
TITLE = "onnxruntime"
LEAD = "A file is worth what it answers elsewhere: the proof, and what each form of it costs in time."
USES = ()  # no setting of the page
LARGEST_FLOAT32 = float(np.finfo(np.float32).max)
NOTHING_YET = "There is no file yet: press Export in the chapter before this one."
NO_CURVE_YET = "Once there is a file, this is what it answers."


def build(session: Session) -> None:
    """Draw the chapter."""
    with gr.Row(elem_classes="chapter"):
        with gr.Column(elem_classes="text"):
            prose(HERE / "text.md")
        with gr.Column(elem_classes="picture"):
            parity = module_view(HERE / "parity.js", to_json({"words": NOTHING_YET}), elem_id="parity")
            with gr.Row(elem_classes="line"):
                again = gr.Button("Check the receipt", elem_id="check", interactive=False)
                measure = gr.Button("Measure the speed", elem_id="measure", interactive=False)
                local = gr.Button("Check in your browser", elem_id="check-here", interactive=False)
            browser = module_view(HERE / "browser.js", at_hand(None), elem_id="browser", **addresses())
            speed = module_view(HERE / "speed.js", to_json({"words": ""}), elem_id="speed")
            with gr.Row(elem_classes="line"):
                x = gr.Textbox("0.5", label="x", max_lines=1, elem_id="x")
                ask = gr.Button("Ask onnxruntime", elem_id="ask")
            curve = module_view(HERE / "answer.js", answer_frame(None, NO_CURVE_YET), elem_id="answer")
    prose(HERE / "anywhere.md")
    listing(answer)
    whole_files(HERE / "anywhere.mjs", HERE / "anywhere.cs")

    hidden: dict[str, Any] = {"show_progress": "hidden"}
    session.exported.change(show_file, session.exported, [parity, curve, browser, again, measure, local], **hidden)
    local.click(for_the_browser, session.exported, browser, **hidden)
    again.click(check_receipt, session.exported, parity, **hidden)
    measure.click(
        measure_speed, session.exported, [speed, measure], concurrency_id="speed", concurrency_limit=1, **hidden
    )
    gr.on(
        [ask.click, x.submit],
        ask_file,
        [x, session.exported, session.progress],
        curve,
        trigger_mode="always_last",
        **hidden,
    )


def show_file(exported: Exported | None) -> tuple[Any, ...]:
    """The report that came with a new file, and the file's own curve."""
    if exported is None:
        nothing = to_json({"words": NOTHING_YET}), answer_frame(None, NO_CURVE_YET), at_hand(None)
        return *nothing, *[gr.Button(interactive=False)] * 3
    words = f"{exported.name}, compared with PyTorch on {exported.report.levels[0].outputs} points."
    curve = answer_frame(exported, f"The curve is what the file answers: {exported.label}.")
    return parity_frame(exported, exported.report, words), curve, at_hand(exported), *[gr.Button(interactive=True)] * 3


def check_receipt(exported: Exported | None) -> str:
    """What anybody who is handed the file does: recompute the receipt, here without the network it was made from."""
    if exported is None:
        return to_json({"words": NOTHING_YET, "problem": True})
    try:
        with exported.on_disk() as path:
            report = check(path)
    except (FileError, ReceiptError) as error:
        return to_json({"words": f"The receipt does not hold: {error}.", "problem": True})
    verdict = "holds" if report.holds else "does not hold"
    words = f"The receipt {verdict}: {report.levels[0].outputs} promised answers recomputed from the file alone."
    return parity_frame(exported, report, words, checked=True)


def parity_frame(exported: Exported, report: ParityReport, words: str, checked: bool = False) -> str:
    """What `parity.js` draws."""
    receipt = read(onnx.load_model_from_string(exported.model))
    return to_json(
        {
            "words": words,
            "checked": checked,
            "label": exported.label,
            "outcome": report.outcome,
            "verdict": sentence(report.verdict),
            "evidence": sentence(report.evidence),
            "tolerance": report.tolerance,
            "levels": [level.as_dict() for level in report.levels],
            "receipt": readable(receipt),
        }
    )


def sentence(words: str) -> str:
    """With a capital and a full stop, unless there is nothing to say."""
    return f"{words[0].upper()}{words[1:]}." if words else ""


def measure_speed(exported: Exported | None) -> Iterator[tuple[str, Any]]:
    """The visitor's file beside its twins, then four layers that are large enough to tell."""
    if exported is None:
        yield to_json({"words": NOTHING_YET, "problem": True}), gr.skip()
        return
    yield to_json({"words": "Measuring."}), gr.Button(interactive=False)
    reports = {"qdq": exported.report, "ort": exported.quick_report}
    answers = {flavor: report.outcome for flavor, report in reports.items() if report}
    with exported.on_disk() as path:
        files = {"qdq": path, "ort": path.with_name(exported.quick_name)}
        speeds = compare_speed({flavor: files[flavor] for flavor in answers})
    own = group(f"Your network, {exported.label}", speeds, answers)
    waiting = "A large network is exported and measured too, once for all visitors: half a minute at most."
    yield to_json({"words": waiting, "groups": [own]}), gr.skip()
    try:
        speeds = large_network()
    except (KernelError, ParityError, ValueError) as error:
        words = f"The large network could not be measured here: {error}."
        yield to_json({"words": words, "groups": [own], "problem": True}), gr.Button(interactive=True)
        return
    large = group(f"{LAYERS} layers of {WIDTH} by {WIDTH} weights, INT4, a scale for {GROUP_SIZE} weights", speeds)
    words = "For one input, on one thread of the machine that serves this page; other machines differ."
    yield to_json({"words": words, "groups": [own, large]}), gr.Button(interactive=True)


def group(title: str, speeds: Sequence[Speed], answers: Mapping[str, str] | None = None) -> dict[str, Any]:
    """One network in its flavours, as `speed.js` draws it, with the outcome of parity where it is known."""
    return {"title": title, "rows": [asdict(row) | {"answers": (answers or {}).get(row.flavor)} for row in speeds]}


def readable(receipt: dict[str, Any]) -> list[tuple[str, str]]:
    """A receipt as pairs of a name and what it says."""
    settings = receipt["settings"]
    layers = [
        f"{', '.join(entry['names'])}: {json.dumps({k: v for k, v in entry.items() if k != 'names'})}"
        for entry in settings["layers"]
    ]
    rows = [sample["inputs"][0]["shape"][0] for sample in receipt["samples"]]
    stored = sum(math.prod(output["shape"]) for sample in receipt["samples"] for output in sample["outputs"])
    return [
        ("Made by", ", ".join(f"{package} {version}" for package, version in receipt["versions"].items())),
        ("Settings", f"flavor {settings['flavor']}, opset {settings['opset_version']}"),
        ("Layers", "; ".join(layers)),
        ("Needs", ", ".join(f"{what} {value}" for what, value in receipt["requires"].items())),
        ("Samples", f"{', '.join(map(str, rows))} rows at once, {stored} numbers of the answers"),
        ("Tolerance", f"{max(receipt['tolerances']):.3g}"),
        ("SHA-256 of the codes", receipt["codes_sha256"]),
        ("SHA-256 of the graph", receipt["graph_sha256"]),
    ]


def ask_file(text: Any, exported: Exported | None, progress: Progress) -> str:
    """What the file answers to the x that was typed, as a sentence and a point on the chart."""
    if exported is None:
        return answer_frame(None, NOTHING_YET, problem=True)
    try:
        x = parse_number(text)
    except ValueError as error:
        return answer_frame(exported, f"{error}.", problem=True)
    (y,) = exported.answer([x])
    words = f"For x = {x:g} the file answers {y:.6g}; the sine without noise is {math.sin(2 * x):.6g}."
    words = words.replace("-", "\N{MINUS SIGN}")
    if abs(x) > math.pi:
        words += " That x is beyond the chart and beyond all it was trained on."
    return answer_frame(exported, f"{words} {exported.moved_on(progress)}".strip(), point={"x": x, "y": y})


def parse_number(text: Any) -> float:
    """A number that float32 can hold, with a decimal point or comma.

    Raises:
        ValueError: it is not one; the message names it and what was expected.
    """
    try:
        x = float(text.replace(",", "."))
    except (AttributeError, ValueError):
        raise ValueError(f"x={text!r:.60} is not a number; expected one such as 0.5 or -1.2") from None
    if not abs(x) <= LARGEST_FLOAT32:
        raise ValueError(f"x={text!r:.60} is out of range; expected a finite float32 number such as 0.5")
    return x


def answer_frame(
    exported: Exported | None, words: str, point: dict[str, float] | None = None, problem: bool = False
) -> str:
    """What `answer.js` draws: the sine, the file's own curve, and the point that was asked for."""
    settings = exported.settings if exported else Settings()
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
