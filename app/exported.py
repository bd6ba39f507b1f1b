"""The file that a visitor has exported: made in one chapter, questioned in the next."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from app.lab.fit import Experiment, Settings
from app.progress import DEVICE, Progress
from app.turns import turn
from export import ParityReport, export_onnx
from export.runtime import run, session


@dataclass(frozen=True)
class Exported:
    """One file.

    Attributes:
        settings, step, label: of the network it was made from.
        name: of the file.
        model: the file itself, which Download gives and onnxruntime answers from.
        report: onnxruntime against PyTorch, on every point of the data and of the chart.
    """

    settings: Settings
    step: int
    label: str
    name: str
    model: bytes
    report: ParityReport

    def __hash__(self) -> int:
        """Gradio compares hashes to see whether a state has changed."""
        return hash((self.label, self.model))

    def answer(self, xs: list[float]) -> list[float]:
        """onnxruntime on the file, in a default session."""
        batch = np.array(xs, dtype=np.float32).reshape(-1, 1)
        (outputs,) = run(session(self.model), [batch])
        return [float(y) for y in outputs.ravel()]

    def moved_on(self, now: Progress) -> str:
        """Says so when the network on the page is another by now."""
        if self.settings != now.settings:
            return f"The file is of {self.label}; the page has moved on to {now.label}."
        if self.step != now.step:
            return f"The file is of step {self.step:,}; training has moved on to step {now.step:,}."
        return ""

    @contextmanager
    def on_disk(self) -> Iterator[Path]:
        """The file in a folder of its own, as long as it is needed."""
        with tempfile.TemporaryDirectory(prefix="qat-") as folder:
            path = Path(folder) / self.name
            path.write_bytes(self.model)
            yield path


def export_now(progress: Progress) -> Exported:
    """The QAT network as it is at this moment.

    Raises:
        ParityError: onnxruntime does not answer as PyTorch.
        ValueError: the network cannot be exported.
    """
    name = file_name(progress)
    with tempfile.TemporaryDirectory(prefix="qat-") as folder, turn():
        path = Path(folder) / name
        experiment = Experiment.restore(progress.snapshot, DEVICE)
        report = export_onnx(experiment.models["qat"], experiment.task.examples, path)
        return Exported(progress.settings, progress.step, progress.label, name, path.read_bytes(), report)


def file_name(progress: Progress) -> str:
    settings = progress.settings
    return f"sine_int{settings.bits:g}_{settings.granularity}_seed{settings.seed}_step{progress.step}.onnx"
