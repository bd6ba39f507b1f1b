"""The ONNX files that the libraries make of the same weights: their size, their answers, their speed."""

import re
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.contenders import CONTENDERS, Library
from benchmarks.markdown import table
from benchmarks.task import Effort

TITLE = "Exported files"
WHO = ("ours", "brevitas", "aimet", "modelopt")
READING = (
    "Four Linear layers of 1024 x 1024 with ReLU between them and the same weights for everybody, quantized per "
    "channel, activations per tensor and calibrated on the same 256 rows, exported by each library. Then 64 new rows: "
    "how many of 65,536 outputs of the unchanged file are further than 1e-5 of their range from what the library's own "
    "model answers in PyTorch, at each optimization level of onnxruntime. Speed: how many times as fast as float32, on "
    "one thread in a default session ({rounds} rounds; median and quartiles)."
)
NOTES = """\
- With `disable_all`, onnxruntime computes what the file says. `all` is what a session does that nobody has told
  otherwise.
- Two sums of the same numbers in another order differ in their last bits, and where a sum lies on a rounding tie, so
  does its code. One such code in a hidden layer moves all 1,024 outputs of its row. With powers of two for scales the
  sums are exact, and the order does not matter.
- From `extended` on, layers with 8-bit inputs run in integer kernels. On x86 processors without VNNI these cut the sum
  of two products off at 16 bits where weights are INT8, and outputs are wrong by much more than one code; with UINT8
  weights they do not. Ours writes 8-bit weights of such layers as UINT8, with zero point 128, so that a file answers
  the same on both kinds of processor. The line below the table says which kind this was.
- torchao and PARQ have no export to ONNX.
"""
WIDTH, LAYERS, ROWS = 1024, 4, 64
KINDS: dict[str, tuple[int, int | None]] = {"W4": (4, None), "W4A8": (4, 8), "W8A8": (8, 8)}
LEVELS = ("disable_all", "basic", "extended", "all")
BATCHES = (1, 64)


def jobs(library: Library, effort: Effort) -> list[dict[str, Any]]:
    return [{"kind": kind, "form": form} for kind, bits in KINDS.items() for form in library.forms(*bits)]


def measure(library: Library, job: dict[str, Any], effort: Effort) -> dict[str, Any]:
    import numpy as np

    from export.read.compare import compare
    from export.read.distance import output_range
    from export.read.files import file_bytes
    from export.read.latency import latency
    from export.write.tensors import to_numpy, torch_outputs

    torch.manual_seed(0)
    fp32, x, new = network(), torch.randn(256, WIDTH), torch.randn(ROWS, WIDTH)
    with tempfile.TemporaryDirectory() as folder:
        baseline, path = Path(folder, "fp32.onnx"), Path(folder, "quantized.onnx")
        torch.onnx.export(
            fp32, (x,), baseline, dynamo=True, dynamic_shapes=({0: torch.export.Dim("batch")},), verbose=False
        )
        model = library.to_file(fp32, *KINDS[job["kind"]], job["form"], x, path)
        row: dict[str, Any] = {"bytes": file_bytes(path)}
        expected = torch_outputs(model, [new])
        levels = compare(path, [to_numpy(new)], expected)
        row["differing"] = [level.beyond_tolerance for level in levels]
        row["distance"] = max(level.max_abs_diff for level in levels) / output_range(expected[0].astype(np.float64))
        for batch in BATCHES:
            timed = latency(baseline, path, batch=batch, rounds=effort.rounds).rows[-1]
            row[f"speed_{batch}"] = [timed.speed, timed.low, timed.high]
    return row


def network() -> nn.Sequential:
    """The same weights in every process."""
    layers: list[nn.Module] = []
    for _ in range(LAYERS):
        layers += [nn.Linear(WIDTH, WIDTH), nn.ReLU()]
    return nn.Sequential(*layers[:-1]).eval()


def render(rows: dict[str, list[dict[str, Any]]]) -> str:
    headers = ["quantized", "by", "bytes", *(f"differing, {level}" for level in LEVELS), "furthest, of the range"]
    headers += [f"speed, batch {batch}" for batch in BATCHES]
    lines = [
        [kind, " ".join(filter(None, [CONTENDERS[name].title, row["form"]])), *_cells(row)]
        for kind in KINDS
        for name, found in rows.items()
        for row in found
        if row["kind"] == kind
    ]
    return f"{table(headers, lines)}\n\n{NOTES}"


def _cells(row: dict[str, Any]) -> list[str]:
    if "failed" in row:
        return [re.sub(r"(?<=\s)/\S+/", "", row["failed"]).replace("|", "/"), *[""] * (len(LEVELS) + 1 + len(BATCHES))]
    speeds = (row[f"speed_{batch}"] for batch in BATCHES)
    return [
        f"{row['bytes']:,}",
        *(f"{count:,}" for count in row["differing"]),
        f"{row['distance']:.1e}",
        *(f"{speed:.2f} ({low:.2f} to {high:.2f})" for speed, low, high in speeds),
    ]
