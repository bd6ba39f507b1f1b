"""Chapter: which layers break first, what a budget buys, and healing by training."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from app.chapters.sensitive.examination import DIGITS_SHOWN, METRIC, WIDTHS, Examination, Healing
from app.components.code import coloured, config_source, listing, prose
from app.components.controls import buttons, choice
from app.components.module import from_view, module_view
from app.handlers import Handlers, show, unchanged
from app.lab.data import Digits
from app.lab.fit import Settings
from app.runs.messages import rounded, to_json
from app.runs.progress import Progress
from app.runs.run import drive
from app.session import HOUR, Session
from app.settings import parse_settings
from qat_core import Mix, PlannedLayer, frontier, suggest

HERE = Path(__file__).parent
KEY = HERE.name
TITLE = "Sensitive layers"
LEAD = "Some layers bear rounding worse than others. Find them, and spend the bytes where they count."
# Not the bits: every width of WIDTHS is measured.
USES = ("granularity", "scale", "noise", "seed", "width", "learning_rate", "device")

# What an answer that does not look at its input scores: 0 for every x, or every digit as likely.
BLIND = {"sine": 0.5, "digits": math.log(10)}

IMPORTS = "from qat_core import QATConfig, QuantSpec, prepare"
SECONDS_A_FRAME = 0.1


def build(session: Session) -> None:
    """Draw the chapter."""
    exam, healing = gr.State(None, time_to_live=HOUR), gr.State(None, time_to_live=HOUR)
    with gr.Row(elem_classes="chapter wide"):
        with gr.Column(elem_classes="picture"):
            with gr.Row(elem_id="sensitive-controls"):
                networks = [("your sine network", "sine"), ("a CNN for handwritten digits", "digits")]
                task = choice("sensitive-task", "Network", networks, "sine")
                with gr.Row(elem_classes="run-buttons"):
                    examine, heal, pause = buttons(KEY, "Scan", "Heal", "Pause")
            view = module_view(HERE / "sensitive.js", frame(Examination(Settings())), elem_id=KEY)
        with gr.Column(elem_classes="text"):
            prose(HERE / "text.md")
            listing(suggest, frontier)

    inputs = [view, exam, healing, session.progress, task, *session.settings]
    common = Handlers(KEY, inputs, [view, exam, healing], js=from_view(KEY, "choice"))
    common.run(examine, scan_layers)
    common.run(heal, heal_network)
    common.pause(pause)
    common.change(task.change, follow_settings)
    common.change(session.changed.then, follow_settings)


def scan_layers(
    request: gr.Request, _choice: str, exam: Examination | None, _healing: Any, progress: Progress, *chosen: Any
) -> Iterator[tuple[Any, ...]]:
    """Examine layer after layer; what was interrupted goes on."""

    def start() -> Examination:
        fresh = Examination.start(settings_of(*chosen), progress)
        return fresh if exam is None or exam.finished or not is_same(exam, fresh) else exam

    def shown(now: Examination | None, **about: Any) -> tuple[Any, ...]:
        return page(now or exam, None, **about)

    yield from drive(request.session_hash, KEY, start, shown)


def heal_network(
    request: gr.Request,
    choice: str,
    exam: Examination | None,
    healing: Healing | None,
    _progress: Progress,
    *_chosen: Any,
) -> Iterator[tuple[Any, ...]]:
    """Train the crushed network on screen; what was paused goes on."""

    def start() -> Healing:
        if exam is None or not exam.finished:
            raise ValueError("Nothing to heal yet: press Scan first.")
        chosen = parse_choice(choice, exam)
        started = Healing.of_mix(exam, chosen) if isinstance(chosen, Mix) else Healing.of_worst(exam, chosen)
        return started if healing is None or healing.finished or healing.config != started.config else healing

    def shown(now: Healing | None, **about: Any) -> tuple[Any, ...]:
        return page(exam, now or healing, **about)

    yield from drive(request.session_hash, KEY, start, shown, SECONDS_A_FRAME)


def follow_settings(
    request: gr.Request, _choice: str, exam: Examination | None, _healing: Any, progress: Progress, *chosen: Any
) -> tuple[Any, ...]:
    """An examination of other settings than those on the page is put away."""
    try:
        fresh = Examination.start(settings_of(*chosen), progress)
    except ValueError as error:
        return show(request, page(exam, None, problem=str(error)), KEY)
    if exam is not None and exam.settings == fresh.settings:
        return unchanged(3)
    return show(request, page(fresh, None), KEY)


def settings_of(task: Any, *settings: Any) -> Settings:
    """The settings on the page, for that task.

    Raises:
        ValueError: a value is not one that the page offers.
    """
    found = parse_settings(*settings)
    if task == "sine":
        return found
    if task == "digits":
        return Settings.of(task, granularity=found.granularity, scale=found.scale, seed=found.seed)
    raise ValueError(f"network={task!r}; expected 'sine' or 'digits'")


def is_same(exam: Examination, fresh: Examination) -> bool:
    """May what was begun go on? Not if the visitor has trained the network meanwhile."""
    return exam.settings == fresh.settings and (not fresh.is_trained or exam.goal == fresh.goal)


def parse_choice(choice: Any, exam: Examination) -> Mix | int:
    """What `sensitive.js` says is on screen: a mix, or the width at which the worst layer is looked for.

    Raises:
        ValueError: it is neither.
    """
    try:
        chosen = json.loads(choice)
        if chosen["heal"] == "mix" and chosen["mix"] >= 0:
            return exam.mixes[int(chosen["mix"])]
        if chosen["heal"] == "worst":
            return WIDTHS[WIDTHS.index(chosen["bits"])]
    except (TypeError, LookupError, ValueError):
        pass
    raise ValueError(f"to heal: {choice!r:.80}; expected a width of {WIDTHS} or one of {len(exam.mixes)} mixes")


def page(exam: Examination | None, healing: Healing | None, **more: Any) -> tuple[Any, ...]:
    """The outputs of every handler: the view and the states."""
    exam = exam or Examination(Settings())
    return frame(exam, healing, **more), exam, healing


def frame(exam: Examination, healing: Healing | None = None, running: bool = False, problem: str = "") -> str:
    """What `sensitive.js` draws."""
    layers = exam.layers
    done, total, doing = progress_of(exam, healing, len(layers))
    metric = METRIC[exam.settings.task]
    return to_json(
        {
            "metric": "Error against the sine" if exam.settings.task == "sine" else "Training loss",
            "label": f"{exam.settings.task}, {exam.settings.granularity.replace('_', ' ')}, seed {exam.settings.seed}",
            "running": running and ("heal" if healing else "scan"),
            "problem": problem,
            "words": doing,
            "done": done,
            "total": total,
            "bits": exam.settings.bits,
            "blind": BLIND[exam.settings.task],
            "baseline": exam.rows[0].baseline if exam.rows else None,
            "layers": [
                {
                    "name": layer.name,
                    "about": about(layer),
                    "elements": sum(map(math.prod, layer.shapes)),
                    "metric": [row.by_bits[width] for width in WIDTHS] if row else None,
                }
                for layer, row in zip(layers, [*exam.rows, *[None] * len(layers)], strict=False)
            ],
            "mixes": [
                {
                    "bits": mix.bits,
                    "bytes": mix.bytes,
                    "expected": exam.rows[0].baseline + mix.damage,
                    "measured": measured[metric] if measured else None,
                    "accuracy": measured.get("accuracy") if measured else None,
                }
                for mix, measured in zip(exam.mixes, [*exam.measured, *[None] * len(exam.mixes)], strict=False)
            ],
            "uniform": [
                {
                    "bits": width,
                    "bytes": sum(row.bytes_at(width) for row in exam.rows),
                    "measured": metrics[metric],
                }
                for width, metrics in zip(WIDTHS, exam.uniform, strict=False)
            ],
            "code": code(exam),
            "digits": digits() if exam.settings.task == "digits" and exam.rows else [],
            "healing": healing and healing_frame(healing, metric),
        }
    )


def digits() -> list[dict[str, Any]]:
    """The first unseen images, a letter a pixel from "a" (white) to "q" (black), and what they show."""
    data = Digits.load()
    images = (data.test_x[:DIGITS_SHOWN].flatten(1) * 16).int().tolist()
    pixels = ("".join(chr(ord("a") + ink) for ink in image) for image in images)
    return [{"pixels": p, "digit": d} for p, d in zip(pixels, data.test_y.tolist(), strict=False)]


def healing_frame(healing: Healing, metric: str) -> dict[str, Any]:
    return {
        "layer": healing.layer,
        "bits": healing.bits,
        "step": healing.step,
        "steps": healing.steps,
        "history": [[step, *rounded([metrics[metric]], 6)] for step, metrics in healing.history],
        "accuracy": healing.history[-1][1].get("accuracy"),
        "answers": healing.answers,
    }


def progress_of(exam: Examination, healing: Healing | None, layers: int) -> tuple[int, int, str]:
    """How much of how much is done, and a sentence about it."""
    network = "sine network" if exam.settings.task == "sine" else "digits network"
    if healing is not None:
        what = f"layer {healing.layer} at {healing.bits[0]:g} bits" if healing.layer else "the mix"
        doing = "Healed" if healing.finished else "Healing"
        return healing.step, healing.steps, f"{doing} {what}: step {healing.step:,} of {healing.steps:,}."
    if not exam.is_trained:
        if not exam.step:
            return 0, 1, f"Not scanned yet. Scan first trains the {network} in float, then rounds one layer at a time."
        return (
            exam.step,
            exam.settings.steps,
            f"Training in float: step {exam.step:,} of {exam.settings.steps:,}.",
        )
    if len(exam.rows) < layers:
        done = f"{len(exam.rows)} of {layers} layers" if exam.rows else "Nothing"
        return (
            len(exam.rows),
            layers,
            f"{done} scanned of the {network} after {exam.step:,} steps in float.",
        )
    if not exam.mixes:
        return 0, 1, f"All {layers} layers scanned; now the mixes of widths that a budget can buy."
    if not exam.finished:
        measured, mixes = len(exam.measured), len(exam.mixes)
        return measured, mixes, f"All {layers} layers scanned; {measured} of {mixes} mixes measured."
    return 1, 1, f"All {layers} layers of the {network} scanned, {len(exam.mixes)} mixes measured."


def code(exam: Examination) -> dict[str, Any]:
    """The mixes as Python in colour: what comes before and after, and a line for each layer at each width."""
    if not exam.mixes:
        return {}
    layers = len(exam.rows)
    by_width = [config_source(Mix((w,) * layers, 0, 0.0).config(exam.rows)).splitlines() for w in WIDTHS]
    first = by_width[0].index("    overrides={") + 1
    return {
        "head": coloured("\n".join([IMPORTS, "", f"config = {by_width[0][0]}", *by_width[0][1:first]])),
        "lines": [[coloured(lines[first + layer]) for lines in by_width] for layer in range(layers)],
        "tail": coloured("\n".join([*by_width[0][first + layers :], "model = prepare(model, config)"])),
    }


def about(layer: PlannedLayer) -> str:
    """Such as "Conv2d 16 → 32, 3 by 3"."""
    (outputs, inputs, *window) = layer.shapes[0]
    return f"{layer.kind} {inputs} → {outputs}" + (f", {window[0]} by {window[1]}" if window else "")
