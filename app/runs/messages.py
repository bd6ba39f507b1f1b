"""What the browser is told of a visitor's networks: one JSON string a frame, which several chapters draw from."""

import base64
import json
import math
from dataclasses import replace
from functools import lru_cache
from typing import Any

from app.lab.data import Sine
from app.lab.fit import MODELS, Settings, StepRecord
from app.lab.weights import WeightRecord
from app.runs.diagnosis import diagnose, number, times
from app.runs.progress import Progress

HARDLY_LEARNED = 0.45  # the mean square of the sine is 0.5
STEPS_A_MAP = 50  # the map of flips is the largest part of a frame, and changes slowly

# What the chapter "QAT" breaks on purpose, as changes to the settings on the page.
PRESETS: dict[str, tuple[str, dict[str, float]]] = {
    "": ("Nothing", {}),
    "rate": ("Learning rate 100 times too high", {"learning_rate": 100}),
    "fine": ("Scale 50 times too small", {"scale_factor": 1 / 50}),
    "coarse": ("Scale 16 times too large", {"scale_factor": 16}),
}


def broken(settings: Settings, preset: Any) -> Settings:
    """The settings with one thing wrong.

    Raises:
        ValueError: there is no such preset.
    """
    if not isinstance(preset, str) or preset not in PRESETS:
        raise ValueError(f"preset={preset!r:.60}; expected one of {', '.join(filter(None, PRESETS))}, or nothing")
    _, factors = PRESETS[preset]
    changes: dict[str, Any] = {name: getattr(settings, name) * factor for name, factor in factors.items()}
    return replace(settings, **changes)


def frame(
    progress: Progress,
    running: bool = False,
    problem: str = "",
    preset: str = "",
    whole: bool = True,
    unasked: bool = False,
) -> str:
    """What `feed.js` takes in.

    Args:
        running: more frames follow.
        problem: a sentence about what went wrong.
        preset: what was broken on purpose.
        whole: with all that the browser may not have yet; the other frames of a run are lean.
        unasked: not an answer to the visitor: what they are looking at stays.
    """
    record, settings = progress.record, progress.settings
    contents: dict[str, Any] = {
        "key": f"{hash(settings):x}",
        "preset": preset,
        "unasked": unasked,
        "step": record.step,
        "steps": record.steps,
        "label": progress.label,
        "running": running,
        "problem": problem,
        "note": progress.note(running),
        "device": progress.device,
        "speed": two_digits(progress.speed),
        "words": {
            "fp32": fp32_in_words(record, settings, running),
            "qat": qat_in_words(record, settings.bits, running),
        },
        "diagnosis": diagnose(record, settings),
        "flips": record.flips,
        "codes": record.codes,
        "loss": {name: significant(record.mse_train[name]) for name in MODELS},
        "error": {name: significant(record.mse_clean[name]) for name in MODELS},
        "curves": {name: rounded(record.curves[name]) for name in MODELS},
        "grid": grid(record.weights),
    }
    if whole or record.step % STEPS_A_MAP == 0:
        rows, columns = record.weights.map_shape
        cells = base64.b64encode(record.weights.frequency).decode()
        contents["map"] = {"rows": rows, "columns": columns, "cells": cells}
    if whole:
        contents["noisy"] = rounded(Sine.sample(settings.noise, settings.seed).y.flatten().tolist(), 2)
        contents["floor"] = noise_floor(settings.noise, settings.seed)
    return to_json(contents)


def grid(weights: WeightRecord) -> dict[str, Any]:
    return {
        "quant_min": weights.quant_min,
        "quant_max": weights.quant_max,
        "bins_per_code": weights.bins_per_code,
        "histogram": weights.histogram,
        "codes_used": weights.codes_used,
        "zeros": round(weights.zeros, 4),
        "clipped": round(weights.clipped, 4),
        "gradient_norm": None if weights.gradient_norm is None else significant(weights.gradient_norm),
        "oscillating": round(weights.oscillating, 4),
    }


@lru_cache(maxsize=128)
def noise_floor(noise: float, seed: int) -> float:
    """The loss of the clean sine itself on the noisy points: about the noise's variance."""
    data = Sine.sample(noise, seed)
    return significant((data.y - data.clean).square().mean().item())


def fp32_in_words(record: StepRecord, settings: Settings, running: bool = False) -> str:
    """One sentence or two about the loss and its floor."""
    if record.step == 0:
        return "Nothing is learned yet: the weights are random." + press_run(running)
    loss, error, floor = record.mse_train["fp32"], record.mse_clean["fp32"], noise_floor(settings.noise, settings.seed)
    begin = f"At step {record.step:,} the loss on the noisy points is {number(loss)}"
    if floor == 0:
        return f"{begin}. Without noise the points are the sine, so the loss has no floor above 0."
    if loss < floor:
        return (
            f"{begin}: below {number(floor)}, which the true sine itself would score. The network has begun to learn "
            f"the noise; its error against the sine is {number(error)}."
        )
    return f"{begin}; the true sine itself would score {number(floor)}. The error against that sine is {number(error)}."


def qat_in_words(record: StepRecord, bits: float, running: bool = False) -> str:
    """One sentence about what training with the rounding gains."""
    if record.step == 0:
        return "Nothing is learned yet: all three start from the same random weights." + press_run(running)
    error = record.mse_clean
    ratio = error["ptq"] / max(error["qat"], 1e-12)
    verdict = "about the same"
    if error["qat"] > HARDLY_LEARNED:
        verdict = "hardly better than to answer 0 for every x, which gives 0.50"
    elif ratio > 1.2:
        verdict = f"{times(error['ptq'], error['qat'])} times less"
    elif ratio < 1 / 1.2:
        verdict = f"for now {times(error['qat'], error['ptq'])} times more"
    return (
        f"At step {record.step:,}, rounding the FP32 network to {bits:g} bits (PTQ) gives an error of "
        f"{number(error['ptq'])}; training with the rounding (QAT) gives {number(error['qat'])}: {verdict}."
    )


def press_run(running: bool) -> str:
    return "" if running else " Press Run."


def significant(value: float) -> float:
    return float(f"{value:.4g}")


def two_digits(value: float) -> float:
    return float(f"{value:.2g}")


def to_json(value: dict[str, Any]) -> str:
    """Strict and compact."""
    return json.dumps(value, allow_nan=False, separators=(",", ":"))


def rounded(values: list[float], digits: int = 3) -> list[float | None]:
    """Short numbers for a curve; what cannot be drawn becomes a gap."""
    return [round(value, digits) if math.isfinite(value) else None for value in values]
