"""The file that a visitor has exported: made in one chapter, questioned in the next."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import export
from app.lab import devices
from app.lab.fit import Experiment, Settings
from app.runs.progress import Progress
from app.runs.queue import exclusive
from export import KernelError, ParityError, ParityReport
from export.read.runtime import run, session


@dataclass(frozen=True)
class Exported:
    """One file.

    Attributes:
        settings, step, label: of the network it was made from.
        name: of the file.
        model: the file itself, which Download gives and onnxruntime answers from.
        report: onnxruntime against PyTorch, on every point of the data and of the chart.
        quick: the same network in the flavour "ort", and `quick_report` its own report; None where it was not made.
        why_not_quick: why no quick file was made.
    """

    settings: Settings
    step: int
    label: str
    name: str
    model: bytes
    report: ParityReport
    quick: bytes | None = None
    quick_report: ParityReport | None = None
    why_not_quick: str = "it is still being made"

    def __hash__(self) -> int:
        """Gradio compares hashes to see whether a state has changed: a twin that comes later makes it no other file,
        and what a visitor asks of it meanwhile is not put away."""
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

    @property
    def quick_name(self) -> str:
        return self.name.replace(".onnx", "_ort.onnx")

    @contextmanager
    def on_disk(self) -> Iterator[Path]:
        """The file, with its quick twin beside it, in a folder of its own as long as it is needed."""
        with tempfile.TemporaryDirectory(prefix="qat-") as folder:
            path = Path(folder) / self.name
            path.write_bytes(self.model)
            if self.quick is not None:
                path.with_name(self.quick_name).write_bytes(self.quick)
            yield path


def export_now(progress: Progress, data: str = "sine") -> Exported:
    """The QAT network as it is at this moment, in standard operators; its file is called after the data.

    Raises:
        ParityError: onnxruntime does not answer as PyTorch.
        ValueError: the network cannot be exported.
    """
    model, report = _export(progress, "qdq")
    return Exported(progress.settings, progress.step, progress.label, file_name(progress, data), model, report)


def with_quick(exported: Exported, progress: Progress) -> Exported:
    """The same network for onnxruntime's quick kernel too, or the reason why not."""
    try:
        model, report = _export(progress, "ort")
    except (KernelError, ParityError, ValueError) as error:
        return replace(exported, why_not_quick=str(error))
    return replace(exported, quick=model, quick_report=report, why_not_quick="")


def _export(progress: Progress, flavor: str) -> tuple[bytes, ParityReport]:
    snapshot = progress.snapshot
    with tempfile.TemporaryDirectory(prefix="qat-") as folder, exclusive():
        path = Path(folder) / "model.onnx"
        experiment = Experiment.restore(snapshot, devices.CPU)
        report = export.export_onnx(experiment.models["qat"], experiment.task.examples, path, flavor=flavor)
        return path.read_bytes(), report


def file_name(progress: Progress, data: str) -> str:
    """The sine has a seed, points of a visitor have none."""
    s = progress.settings
    seed = "" if s.points else f"_seed{s.seed}"
    return f"{data}_int{s.bits:g}_{s.granularity}{seed}_step{progress.step}.onnx"
