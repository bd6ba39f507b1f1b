"""A pretrained sentence encoder as a file: ours, healed without labels, beside those of onnxruntime's quantizers."""

import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from app.lab.sentences import SHAPES, Encoder, answers, cosines, neighbours_kept, other_batches, tokens
from benchmarks.contenders import Library
from benchmarks.environment import ROOT
from benchmarks.markdown import table
from benchmarks.task import Effort

TITLE = "A sentence encoder"
WHO = ("ours",)
READING = (
    "all-MiniLM-L6-v2 in onnxruntime. Ours are by the recipes of `python -m examples.sentence_encoder`, healed on "
    "sentences of transformers' documentation; onnxruntime's are what its own quantizers make of the float32 file. All "
    "are asked 256 sentences of the documentation of Python's modules: their cosine to float32, and the share of the "
    "ten nearest sentences of each that stay so. Then how many times as fast as float32 at batch x tokens, all files "
    "timed in turn in one process on one thread (seven rounds; medians of the rounds' ratios)."
)
NOTES = """\
- Our files are what that example made on this machine: healing took less than five minutes of its two cores for the
  small one, which won back 75% of the loss of rounding, and two for the quick one, which won back 80%. Nothing else
  ran while they were timed.
- On an older processor, with AVX2 and without VNNI, the quick file was 1.6 to 2.4 times as fast as float32, and
  onnxruntime's dynamic UINT8, which cuts nothing off there, 1.2 to 1.6 times.
- onnxruntime's dynamic quantization is `quantize_dynamic` with `weight_type=QuantType.QUInt8`, and with its default,
  INT8 weights, whose sums are cut off where there is no VNNI. Its 4 bits are `MatMulNBitsQuantizer` in blocks of 32 at
  accuracy level 4, embeddings included.
- Brevitas, AIMET, ModelOpt and NNCF were not run on it: each would need an environment with transformers and a training
  loop of its own, more than twenty minutes of this machine. Their files of smaller networks are in the table of files.
"""
BATCHES, ROUNDS = 8, 7


def _dynamic(source: Path, target: Path, unsigned: bool) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(source, target, weight_type=QuantType.QUInt8 if unsigned else QuantType.QInt8)


def _four_bits(source: Path, target: Path) -> None:
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    operators = ("MatMul", "Gather")
    options = {"block_size": 32, "accuracy_level": 4, "op_types_to_quantize": operators}
    quantizer = MatMulNBitsQuantizer(onnx.load(source), **options)
    quantizer.process()
    quantizer.model.save_model_to_file(str(target))


THEIRS: dict[str, Callable[[Path, Path], None]] = {
    "onnxruntime, dynamic UINT8": lambda source, target: _dynamic(source, target, unsigned=True),
    "onnxruntime, dynamic INT8": lambda source, target: _dynamic(source, target, unsigned=False),
    "onnxruntime, 4 bits": _four_bits,
}
OURS = {f"ours, {name}": ROOT / f"sentence_encoder_{name}.onnx" for name in ("small", "quick")}


def jobs(library: Library, effort: Effort) -> list[dict[str, Any]]:
    return [*({"file": name} for name in (*OURS, *THEIRS)), {"shapes": [list(shape) for shape in SHAPES]}]


def measure(library: Library, job: dict[str, Any], effort: Effort) -> dict[str, Any]:
    from export import latency

    missing = [file.name for file in OURS.values() if not file.exists()]
    if missing:
        raise FileNotFoundError(f"{missing[0]} is not there; run python -m examples.sentence_encoder first")
    if "shapes" in job:
        files = {name: _file(name) for name in (*OURS, *THEIRS)}
        speeds = {}
        for batch, length in job["shapes"]:
            found = latency(*files.values(), inputs=tokens(batch, length), rounds=ROUNDS).rows
            speeds[f"{batch} x {length}"] = [(row.speed, row.low, row.high, row.milliseconds) for row in found]
        return {"names": ["float32", *files], "speeds": speeds}
    file = _file(job["file"])
    asked, teacher = other_batches()[:BATCHES], Encoder().eval()
    with torch.no_grad():
        expected = np.concatenate([teacher(**batch).numpy() for batch in asked])
    said = answers(file, asked)
    cosine, kept = cosines(said, expected), neighbours_kept(said, expected)
    return {"bytes": file.stat().st_size, "mean": float(cosine.mean()), "worst": float(cosine.min()), "kept": kept}


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    """Of this run, gone when it ends."""
    return tempfile.TemporaryDirectory()


@cache
def _float32() -> Path:
    """The model as torch writes it."""
    file, example = Path(_folder().name, "float32.onnx"), tuple(torch.from_numpy(x) for x in tokens(2, 8))
    sizes = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    torch.onnx.export(Encoder().eval(), example, file, dynamo=True, dynamic_shapes=(sizes, sizes), verbose=False)
    return file


@cache
def _file(name: str) -> Path:
    if name in OURS:
        return OURS[name]
    target = Path(_folder().name, f"{name}.onnx")
    THEIRS[name](_float32(), target)
    return target


def render(rows: dict[str, list[dict[str, Any]]]) -> str:
    (found,) = rows.values()
    timed: dict[str, Any] = next((row for row in found if "speeds" in row), {"names": [], "speeds": {}})
    lines = []
    for row in found:
        if "file" not in row:
            continue
        cells = [str(row.get("failed"))] * 4
        if "failed" not in row:
            cells = [f"{row['bytes'] / 1e6:.1f}", f"{row['mean']:.4f}", f"{row['worst']:.4f}", f"{row['kept']:.1%}"]
        place = timed["names"].index(row["file"]) if row["file"] in timed["names"] else None
        speeds = ["-" if place is None else f"{of[place][0]:.2f}" for of in timed["speeds"].values()]
        lines.append([row["file"], *cells, *speeds])
    head = ["file", "MB", "cosine, mean", "worst", "neighbours kept", *timed["speeds"]]
    times = [f"{shape}: {of[0][3]:.3g} ms" for shape, of in timed["speeds"].items()]
    return "\n\n".join([table(head, lines), f"float32 takes {', '.join(times)}." if times else "", NOTES.strip()])
