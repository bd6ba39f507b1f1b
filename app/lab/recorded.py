"""`python -m app.lab.recorded FILE`: the run that the page's front door plays, for which no visitor has to wait."""

import json
import sys
from collections.abc import Sequence

from app.lab import devices
from app.lab.fit import MODELS, Experiment, Settings
from app.lab.pretrained import write

EVERY = 10  # steps; of what is trained, this much is looked at
SHOWN = ((100, 10), (400, 20), (2000, 40))  # until which step a frame every so many


def main(argv: Sequence[str] | None = None) -> int:
    """Train with the settings that the page starts with; the file appears when it is whole."""
    return write("recorded", to_json, argv)


def to_json(settings: Settings) -> str:
    """The noisy points, and a few dozen frames: step, error against the sine, curves in hundredths."""
    experiment = Experiment(settings, devices.CPU)
    records = [experiment.record(), *experiment.run(every=EVERY)]
    frames = [
        {
            "step": record.step,
            "error": {name: float(f"{record.mse_clean[name]:.4g}") for name in MODELS},
            "curves": {name: hundredths(record.curves[name]) for name in MODELS},
        }
        for record in records
        if is_shown(record.step)
    ]
    noisy = hundredths(experiment.task.data.y.flatten().tolist())  # type: ignore[attr-defined]
    return json.dumps({"steps": settings.steps, "noisy": noisy, "frames": frames}, separators=(",", ":")) + "\n"


def is_shown(step: int) -> bool:
    """Frames are closer together where more happens."""
    every = next((every for until, every in SHOWN if step <= until), SHOWN[-1][1])
    return step % every == 0


def hundredths(values: list[float]) -> list[int]:
    return [round(100 * value) for value in values]


if __name__ == "__main__":
    sys.exit(main())
