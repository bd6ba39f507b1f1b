"""One architecture, as a newcomer takes it through the README: prepare, two steps, export, and an unseen batch."""

import copy
import importlib
import io
import tempfile
import time
import warnings
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.zoo import ROOMS
from benchmarks.zoo.architecture import Architecture
from export import check_parity, export_onnx
from export.read.compare import compare
from export.read.runtime import InputsError
from export.write.call import Call, flat, flattened
from export.write.tensors import to_numpy, torch_outputs
from qat_core import QATConfig, QuantSpec, prepare
from qat_core.batches import arguments

WIDTHS = {
    "W4": QATConfig(),
    "W4A8": QATConfig(activation=QuantSpec.activation()),
    "W8A8": QATConfig(QuantSpec(bits=8), QuantSpec.activation()),
}


def attempts(answers: Connection, room: str, name: str, widths: list[str]) -> None:
    """Send (width, row) for each width; "torch" is the float network through torch.onnx.export alone."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    architecture: Architecture = importlib.import_module(f"benchmarks.zoo.{ROOMS[room]}").ZOO[room][name]
    network = architecture.build()
    (batch, length), (_, only) = architecture.unseen, architecture.seen
    example, *unseen = (architecture.inputs(*size) for size in (architecture.seen, (batch, length), (batch, only)))
    for width in widths:
        began = time.monotonic()
        try:
            attempt = of_torch(network, example) if width == "torch" else ours(network, example, unseen, WIDTHS[width])
        except Exception as error:  # whatever is raised is an answer for the table
            attempt = {"refused": sentence(error), "kind": type(error).__name__}
        answers.send((width, {**attempt, "seconds": round(time.monotonic() - began, 1)}))


def ours(network: nn.Module, example: Any, unseen: list[Any], config: QATConfig) -> dict[str, Any]:
    """The unseen batch has another length, too; where the file takes no other, as the report says, the next has not."""
    model = prepare(network, config)
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    for _ in range(2):
        args, kwargs = copy.deepcopy(arguments(example))
        answered = [y for y in flat(model(*args, **kwargs))[1] if y.requires_grad]
        torch.stack([y.square().mean() for y in answered]).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    file = io.BytesIO()
    seen = export_onnx(model.eval(), example, file)
    try:
        report, lengths = check_parity(model, file, unseen[0]), ""
    except InputsError:
        report, lengths = check_parity(model, file, unseen[1]), ", one length"
    report.raise_if_broken()
    outcome = ("exact" if seen.outcome == report.outcome == "exact" else "rounding") + lengths
    return {"outcome": outcome, "verdict": report.verdict, "axes": report.axes, "in_float": list(report.in_float)}


def of_torch(network: nn.Module, example: Any) -> dict[str, Any]:
    """With nothing declared, and compared on its own example."""
    network = copy.deepcopy(network).eval()
    args, kwargs = copy.deepcopy(arguments(example))
    program = torch.onnx.export(copy.deepcopy(network), args, kwargs=kwargs, dynamo=True, verbose=False)
    assert program is not None
    call = Call.of(network, example)
    inputs = [to_numpy(x) for x in call.tensors]
    expected = torch_outputs(flattened(network, call), call.tensors)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "model.onnx")
        program.save(file)
        try:
            furthest = max(level.max_abs_diff for level in compare(file, inputs, expected))
        except Exception as error:  # a file that does not run is an answer, too
            return {"outcome": "exported", "verdict": f"the file does not run: {sentence(error)}"}
    return {"outcome": "exported", "verdict": f"off by {furthest:.2g} at most"}


def sentence(error: BaseException) -> str:
    """The first line of what lies at the root of torch's errors, or of any other."""
    while error.__cause__ is not None and type(error).__module__.startswith("torch"):
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
