"""Chapter: your own curve, your own module, and six questions."""

import json
import math
import re
from base64 import b64decode
from binascii import Error as NotBase64
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr

from app.chapters.your_turn.module import module_frame
from app.components.code import prose
from app.components.controls import buttons
from app.components.module import from_view, module_view
from app.handlers import QUIET, Handlers, show, unchanged
from app.lab.fit import MODELS, Settings
from app.lab.points import MOST_BYTES, Points, Reading, check_points, read_csv
from app.runs.diagnosis import number
from app.runs.exported import export_now
from app.runs.messages import rounded, to_json, two_digits
from app.runs.progress import Progress
from app.runs.run import drive, is_running
from app.session import HOUR, Session
from app.settings import parse_settings
from export import ParityError, audit

HERE = Path(__file__).parent
KEY = HERE.name
TITLE = "Your turn"
LEAD = "Your own curve, your own module, and six questions."
USES = ("bits", "granularity", "scale", "seed", "width", "learning_rate", "device")

MOST_OF_A_NAME = 40
NO_NAME = re.compile(r"[^A-Za-z0-9]+")

SECONDS_A_FRAME = 0.04  # ten steps; the 2,000 take eight seconds


def build(session: Session) -> None:
    """Draw the chapter."""
    own = gr.State(None, time_to_live=HOUR)
    with gr.Row(elem_classes="chapter"):
        with gr.Column(elem_classes="text"):
            prose(HERE / "text.md")
        with gr.Column(elem_classes="picture"):
            with gr.Row(elem_classes="run-buttons"):
                run, pause, reset, take_home = buttons("your", "Train", "Pause", "Reset", "Export")
                download = gr.DownloadButton("Download", interactive=False, elem_id="your-download")
            view = module_view(HERE / "your_turn.js", frame(None), elem_id="your-turn")
    with gr.Row(elem_classes="chapter"):
        with gr.Column(elem_classes="text"):
            prose(HERE / "module.md")
        with gr.Column(elem_classes="picture"):
            module = module_view(
                HERE / "snippet.js", module_frame(*(s.value for s in session.settings)), elem_id="your-module"
            )
    prose(HERE / "questions.md")
    module_view(HERE / "quiz.js", (HERE / "questions.json").read_text(encoding="utf-8"), elem_id="quiz")

    common = Handlers(KEY, [view, own, *session.settings], [view, own], js=from_view("your-turn", "points"))
    common.run(run, train)
    common.pause(pause)
    common.change(reset.click, start_anew)
    common.after_the_run(
        take_home, export_file, "export", outputs=[view, own, download], concurrency_id="export", concurrency_limit=1
    )
    view.upload(
        read_points,
        own,
        common.outputs,
        trigger_mode="always_last",
        show_progress="hidden",
        api_visibility="private",
    )
    common.change(session.changed.then, follow_settings)
    session.changed.then(module_frame, [*session.settings], module, **QUIET, trigger_mode="always_last")


def train(request: gr.Request, points: Any, own: Progress | None, *settings: Any) -> Iterator[tuple[Any, ...]]:
    """Train on the points to the end, or until asked to stop; a run that had ended begins again."""

    def start() -> Progress:
        chosen = up_to_date(own, points, settings)
        return Progress.start(chosen.settings) if chosen.finished else chosen

    def shown(now: Progress | None, **about: Any) -> tuple[Any, ...]:
        return page(now or own, **about)

    yield from drive(request.session_hash, KEY, start, shown, SECONDS_A_FRAME)


def start_anew(request: gr.Request, points: Any, own: Progress | None, *settings: Any) -> tuple[Any, ...]:
    """Nothing is trained yet; the points stay."""
    return show(request, page(None), KEY)


def follow_settings(request: gr.Request, points: Any, own: Progress | None, *settings: Any) -> tuple[Any, ...]:
    """What was trained with other settings is put away."""
    try:
        if own is None or own.settings == settings_of(own.settings.points, settings):
            return unchanged(2)
    except ValueError as error:
        return unchanged(2) if is_running(request.session_hash) else page(own, problem=str(error))
    return start_anew(request, points, own, *settings)


def read_points(request: gr.Request, own: Progress | None, event: gr.EventData) -> tuple[Any, ...]:
    """Points that were typed, or are in a file: the browser sends its name and its bytes."""
    try:
        reading = parse_upload(event._data)
        outputs = page(None, points=reading.points, words=in_words(None, reading))
    except ValueError as error:
        outputs = page(own, problem=str(error))
    return show(request, outputs, KEY)


def parse_upload(sent: Any) -> Reading:
    """
    Raises:
        ValueError: it is not points; the message says what was found and what was expected.
    """
    if not (isinstance(sent, dict) and isinstance(sent.get("name"), str) and isinstance(sent.get("data"), str)):
        raise ValueError("the browser sent no file; expected its name and its bytes")
    if len(sent["data"]) > 2 * MOST_BYTES:
        raise ValueError(f"{sent['name']:.80} is too large; expected at most {MOST_BYTES:,} bytes")
    try:
        data = b64decode(sent["data"], validate=True)
    except NotBase64:
        raise ValueError(f"{sent['name']:.80} did not arrive whole; try again") from None
    said = [part.strip() for part in str(sent.get("columns") or "").split(",")]
    if said != [""] and len(said) != 2:
        raise ValueError(f"columns={sent['columns']!r:.60}; expected two names or numbers with a comma between")
    return read_csv(data, f"{sent['name']:.80}", (said[0], said[1]) if len(said) == 2 else None)


class Drawing(NamedTuple):
    """The points in the browser, and what they are called there: a file or a shape."""

    name: str
    points: Points

    @classmethod
    def parse(cls, text: Any) -> "Drawing":
        """
        Raises:
            ValueError: it is none.
        """
        try:
            said = json.loads(text)
            name, points = said["name"], tuple((float(x), float(y)) for x, y in said["points"])
        except (TypeError, ValueError, LookupError):
            raise ValueError(f"the points are {text!r:.60}; expected a name and pairs of numbers") from None
        check_points(points)
        return cls(NO_NAME.sub("-", str(name))[:MOST_OF_A_NAME].strip("-") or "yours", points)


def settings_of(points: Points, settings: Any) -> Settings:
    """The settings on the page, for these points.

    Raises:
        ValueError: a value is not one that the page offers.
    """
    page = parse_settings(*settings)
    kept = {name: getattr(page, name) for name in USES}
    return Settings.of("points", points=points, **kept)


def up_to_date(own: Progress | None, points: Any, settings: Any) -> Progress:
    """What the visitor has trained, or step 0 if the points or the settings are others by now.

    Raises:
        ValueError: a point or a setting is not one that can be used.
    """
    wanted = settings_of(Drawing.parse(points).points, settings)
    return own if own is not None and own.settings == wanted else Progress.start(wanted)


def export_file(points: Any, own: Progress | None, *settings: Any) -> Iterator[tuple[Any, ...]]:
    """The QAT network of this moment as a file. It lies in a folder of its own until Gradio has its copy."""
    try:
        drawing = Drawing.parse(points)
        is_trained = own is not None and own.settings == settings_of(drawing.points, settings)
    except ValueError as error:
        yield *page(own, problem=str(error)), gr.skip()
        return
    if own is None or not own.step or not is_trained:
        nothing = "Nothing is trained on these points with these settings yet: press Train first."
        yield *page(own, problem=nothing), gr.skip()
        return
    yield *page(own, words="Exporting: this takes about three seconds."), gr.DownloadButton(interactive=False)
    try:
        made = export_now(own, drawing.name)
    except (ValueError, ParityError) as error:
        yield *page(own, problem=f"Nothing was exported: {error}"), gr.skip()
        return
    with made.on_disk() as path:
        sizes, levels = audit(path), made.report.levels
        apart = max(level.max_abs_diff for level in levels)
        words = (
            f"{path.name}: {sizes.file_bytes:,} bytes, {sizes.fp32_bytes:,} in FP32. At all {len(levels)} "
            f"optimization levels onnxruntime answers within {number(apart)} of PyTorch."
        )
        yield *page(own, words=words, file=path.name), gr.DownloadButton(value=path, interactive=True)


def page(own: Progress | None, **about: Any) -> tuple[Any, ...]:
    """The outputs of nearly every handler: the view and the state."""
    return frame(own, **about), own


def frame(
    own: Progress | None,
    running: bool = False,
    problem: str = "",
    words: str = "",
    points: Points | None = None,
    file: str = "",
) -> str:
    """What `your_turn.js` draws; a `file` is what Download gives from now on."""
    record = own.record if own else None
    return to_json(
        {
            "running": running,
            "problem": problem,
            "words": words or in_words(own),
            "device": own.device if own else "",
            "speed": two_digits(own.speed) if own else 0,
            "step": record.step if record else 0,
            "steps": record.steps if record else Settings.of("points", points=NO_MATTER).steps,
            "points": points,
            "of": f"{hash(own.settings):x}, step {own.step}" if own else "",
            "file": file,
            "curves": {name: rounded(record.curves[name], 6) for name in MODELS} if record else {},
            "error": {name: math.sqrt(record.mse_train[name]) for name in MODELS} if record else {},
        }
    )


NO_MATTER: Points = ((0.0, 0.0), (1.0, 0.0), (2.0, 0.0), (3.0, 0.0))


def in_words(own: Progress | None, reading: Reading | None = None) -> str:
    """One sentence about what there is to see now."""
    if reading is not None:
        note = f" ({reading.note})" if reading.note else ""
        return f"{len(reading.points):,} points read{note}. Press Train."
    if own is None or own.step == 0:
        return "Draw over the curve, pick a shape or bring your own points; then press Train."
    fp32, ptq, qat = (math.sqrt(own.record.mse_train[name]) for name in MODELS)
    bits = f"{own.settings.bits:g} bits"
    return (
        f"At step {own.step:,} FP32 is off by {number(fp32)}, rounded to {bits} (PTQ) by {number(ptq)}; "
        f"trained at {bits} (QAT) by {number(qat)}."
    )
