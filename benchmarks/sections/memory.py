"""How many bytes a prepared model holds."""

from typing import Any

from app.lab.data import Sine
from app.lab.models import mlp
from benchmarks.contenders import Library, trainee
from benchmarks.sections.widths import by_width
from benchmarks.task import Effort, bytes_of, train_step

TITLE = "Memory"
READING = (
    "Bytes of the parameters and buffers of a prepared model after one training step, as a multiple of the FP32 "
    "model's. Weights have 4 bits, one scale per channel, and are kept in float32 while they train. PARQ's second copy "
    "of the weights is in its optimizer and not counted here. There is no spread: bytes are counted."
)
WIDTHS = (64, 1024)


def jobs(library: Library, effort: Effort) -> list[dict[str, Any]]:
    return [{"width": width, "recipe": recipe} for recipe in library.TIMED for width in WIDTHS]


def measure(library: Library, job: dict[str, Any], effort: Effort) -> dict[str, int]:
    data, fp32 = Sine.sample(), mlp(job["width"])
    fp32_bytes = bytes_of(fp32)
    trained = trainee(library, fp32, data.x, 4, "per_channel", job["recipe"], effort.steps)
    train_step(*trained, data.x, data.y)
    return {"bytes": bytes_of(trained.model), "fp32_bytes": fp32_bytes}


def render(rows: dict[str, list[dict[str, Any]]]) -> str:
    return by_width(rows, WIDTHS, lambda row: f"{row['bytes'] / row['fp32_bytes']:.4f}")
