"""`python -m app.lab.pretrained FILE`: the trained FP32 network of the page, for the chapters that show its weights.

They draw in the browser, and one network for all of them costs no visitor a training run.
"""

import base64
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from app.lab import devices
from app.lab.fit import Experiment, Settings


def main(argv: Sequence[str] | None = None) -> int:
    """Train with the settings that the page starts with; the file appears when it is whole."""
    return write("pretrained", to_json, argv)


def write(command: str, to_json: Callable[[Settings], str], argv: Sequence[str] | None) -> int:
    """What a command of this kind does: one argument, the file to write."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    if len(arguments) != 1:
        print(f"python -m app.lab.{command}: expected one argument, the FILE to write", file=sys.stderr)
        return 2
    path = Path(arguments[0])
    if not path.parent.is_dir():
        print(f"python -m app.lab.{command}: cannot write {path}: {path.parent} is not a folder", file=sys.stderr)
        return 2
    part = path.with_suffix(".part")
    part.write_text(to_json(Settings()), encoding="utf-8")
    part.replace(path)
    return 0


def to_json(settings: Settings) -> str:
    """Error against the sine and parameters of the FP32 network after its last step."""
    experiment = Experiment(settings, devices.CPU)
    *_, record = experiment.run(every=settings.steps)
    parameters = experiment.models["fp32"].state_dict()
    network: dict[str, Any] = {
        "mse_clean": record.mse_clean["fp32"],
        "parameters": {name: encoded(values) for name, values in parameters.items()},
    }
    return json.dumps(network, indent=1) + "\n"


def encoded(values: torch.Tensor) -> dict[str, Any]:
    """Shape and bits of a float32 tensor: base64 of the little-endian bytes."""
    raw = values.numpy().astype("<f4").tobytes()
    return {"shape": list(values.shape), "float32": base64.b64encode(raw).decode("ascii")}


if __name__ == "__main__":
    sys.exit(main())
