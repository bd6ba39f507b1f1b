"""Networks drawn at random: does onnxruntime compute the codes that PyTorch computed?"""

import tempfile
from pathlib import Path
from typing import Any

from benchmarks.contenders import Library
from benchmarks.markdown import table
from benchmarks.networks import KINDS, draw, output_steps
from benchmarks.task import Effort

TITLE = "Parity"
WHO = ("ours",)
READING = (
    "{networks} networks drawn from their seeds ([`networks.py`](networks.py)): MLPs and CNNs of 1 to 6 layers, 1 to "
    "300 wide, with biases or none, BatchNorm to fold or none, strides, groups and pooling; weights of 1.58 to 8 bits, "
    "activations of 4 or 8, every granularity, grid and rule for the scales; in the last 64, bits that differ between "
    "layers, ReLU6 and Clip behind most, outputs of every number modulo 32. Each is exported, and the unchanged file "
    "answers a batch that it has not seen, at all four optimization levels of onnxruntime, on one thread."
)
NOTES = """\
- Where activations are quantized, an output is a sum of products of codes: a whole number of steps, the step being the
  scale of the input times that of the channel's weights; the finest one where a channel has several, and half of it on
  the half-shifted grid. That whole number is the output's code. It differs where onnxruntime's output is more than half
  a step away from PyTorch's.
- Beyond 2^24 steps float32 has no room for whole numbers. Such outputs have no code and are counted apart: a bias that
  is huge beside the weights of its channel makes them.
- With powers of two every sum of codes is exact in any order, so whole outputs are equal bit for bit. Not so, by a unit
  in the last place, where a bias stays in float (several scales a channel, half-shifted grids) and beyond 2^24 steps.
- With free scales the order of a sum decides on which side of a rounding tie it falls; every number behind it moves.
  The sums of the two are up to a quarter of a unit in the last place apart on average, which decides a few of a
  million codes of 8 bits. A code deep inside a network moves dozens of outputs, so that the count hangs on few of them:
  one or two outputs in 10,000 are what to expect.
- Calibrated scales lie off the ties of the sums before them, by one part in 4,096 (`OFF_TIES` in
  [`observer.py`](../qat_core/observer.py)): a scale that is the largest sum divided by 15 or 255 puts a row of others
  exactly on ties, and in a network with few different sums hundreds of outputs then differ.
- Where activations stay in float, outputs have no codes: what counts is the distance, in parts of the outputs' range.
"""
LEVELS = ("disable_all", "basic", "extended", "all")


def jobs(library: Library, effort: Effort) -> list[dict[str, Any]]:
    return [{"seed": seed} for seed in range(effort.networks)]


def measure(library: Library, job: dict[str, Any], effort: Effort) -> dict[str, Any]:
    """Export one network and compare: figures that any optimization level has, and differing codes at each."""
    import numpy as np

    from export import check_parity, export_onnx
    from export.read.distance import output_range
    from export.read.runtime import run, session
    from export.write.tensors import to_numpy, torch_outputs
    from qat_core import convert

    drawn = draw(job["seed"], effort.outputs)
    row: dict[str, Any] = {"kind": drawn.kind, "network": drawn.description}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "network.onnx")
        export_onnx(drawn.model, drawn.examples, path)
        converted = convert(drawn.model)
        (expected,) = (y.astype(np.float64) for y in torch_outputs(converted, [drawn.inputs]))
        answers = [run(session(path, level), [to_numpy(drawn.inputs)])[0] for level in LEVELS]
        report = check_parity(converted, path, drawn.inputs)
    off = [np.abs(answer.astype(np.float64) - expected) for answer in answers]
    row |= {"outputs": expected.size, "distance": max(d.max() for d in off) / output_range(expected)}
    if drawn.kind != "weights only":
        step = to_numpy(output_steps(converted)).astype(np.float64)
        beyond = np.abs(expected) > 2**24 * step
        row["proven"] = bool(report.proof and report.proof.proven)
        row["bits"] = max(int((d > 0).sum()) for d in off)
        row["beyond"] = int(beyond.sum())
        row["differing"] = [int(((d > step / 2) & ~beyond).sum()) for d in off]
    if (divergence := report.divergence) is not None:
        row |= {"tie_ulps": divergence.tie_ulps, "explained": divergence.explained}
    return row


def render(rows: dict[str, list[dict[str, Any]]]) -> str:
    """A line for each kind of network, then every network that has differing codes or failed."""
    (found,) = rows.values()
    whole = [row for row in found if "failed" not in row]
    headers = ["scales", "networks", "outputs", *(f"differing, {level}" for level in LEVELS)]
    headers += ["not equal in every bit", "beyond 2^24 steps", "furthest, of the range", "proven for every input"]
    kinds = [_kind(kind, [row for row in whole if row["kind"] == kind]) for kind in dict.fromkeys(KINDS)]
    apart = [_apart(row) for row in found if "failed" in row or max(row.get("differing", [0]))]
    return "\n\n".join(
        [
            table(headers, kinds),
            NOTES,
            "Every network with a differing code, and how far the sums that fell on the other side lie from a rounding "
            "tie, at most, in units of the last place of the largest number of their tensor:",
            table(["seed", "network", "differing of outputs", "from a tie"], apart) if apart else "There is none.",
        ]
    )


def _kind(kind: str, found: list[dict[str, Any]]) -> list[str]:
    def total(key: str) -> str:
        return f"{sum(row[key] for row in found):,}" if found and key in found[0] else "-"

    with_codes = [row["differing"] for row in found if "differing" in row]
    differing = [f"{sum(counts):,}" for counts in zip(*with_codes, strict=True)] or ["-"] * len(LEVELS)
    furthest = max((row["distance"] for row in found), default=0.0)
    cells = [kind, f"{len(found)}", total("outputs"), *differing, total("bits"), total("beyond")]
    return [*cells, f"{furthest:.2g}", total("proven")]


def _apart(row: dict[str, Any]) -> list[str]:
    if "failed" in row:
        return [str(row["seed"]), row.get("network", ""), row["failed"], "-"]
    ulps = f"{row['tie_ulps']:.2g}" if row.get("explained") else "not explained"
    return [str(row["seed"]), row["network"], f"{max(row['differing'])} of {row['outputs']:,}", ulps]
