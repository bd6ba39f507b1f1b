"""What a file promises: PyTorch's answers to rows of the example and of patterns, written into its receipt."""

import platform
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from export.read import receipt
from export.read.compare import LevelParity, ParityReport, Ties, compare, compare_samples
from export.read.distance import TOLERANCE
from export.read.graph import Graph
from export.read.probes import ROUNDING_LEVEL
from export.read.runtime import Setup
from export.read.sample import FEW_NUMBERS, few_rows, numbers, pattern_rows, promise, sample_of
from export.write.sizes import takes
from export.write.tensors import to_numpy, torch_outputs

SAMPLE_ATTEMPTS = 8
PATTERNS = {128: 128, 1: 16}  # rows -> numbers of each output that are stored; kernels for large batches begin at 64
EXACT_NUMBERS = 16  # beside the hash: how far a wrong answer lies
ROUNDING = {"QuantizeLinear", "DynamicQuantizeLinear", "Round"}
TIES_TIMES, TIES_SHARE, TIES_REACH = 4, 0.02, 0.25  # of those seen here, of the numbers, of the widest output's range

Entries = list[dict[str, Any]]
Arrays = Sequence[NDArray[np.generic]]


def attach_receipt(
    graph: Graph,
    target: Path,
    converted: nn.Module,
    inputs: Sequence[Tensor],
    expected: Arrays,
    report: ParityReport,
    settings: dict[str, Any],
    setup: Setup | None = None,
) -> None:
    """Promise a sample that no rounding tie decides, on this machine at least, then patterns of many rows and one."""
    arrays = [to_numpy(t) for t in inputs]
    for first_row in range(SAMPLE_ATTEMPTS):
        asked = few_rows(arrays, graph.batch_axes, first_row)
        answers = _answers(converted, asked)
        levels = compare(target, numbers(asked), answers, report.tolerances, setup)
        if not any(level.beyond_tolerance for level in levels):
            break
    proven = report.proof is not None and report.proof.proven
    parts = []
    patterns = _patterns(converted, arrays, expected, graph.batch_axes)
    for entries, outputs, most in [(asked, answers, FEW_NUMBERS), *patterns]:
        exact = proven and not any(
            level.max_abs_diff for level in compare(target, numbers(entries), outputs, setup=setup)
        )
        stored = [promise(output, exact, EXACT_NUMBERS if exact else most) for output in outputs]
        parts.append({"inputs": entries, "outputs": stored})
    levels = compare_samples(target, [sample_of(**part) for part in parts], report.tolerances, setup)
    receipt.attach(
        graph,
        parts,
        report.tolerances,
        _ties(graph, levels, report.tolerances),
        versions={"python": platform.python_version()}
        | {m.__name__: m.__version__ for m in (torch, onnx, onnxruntime)},
        settings=settings,
        kernels=report.kernels.expected if report.kernels else {},
    )


def _patterns(
    converted: nn.Module, arrays: Arrays, expected: Arrays, batch_axes: Sequence[int | None]
) -> Iterator[tuple[Entries, Arrays, int]]:
    """Rows that the example did not have, as far as the model takes them and answers numbers."""
    works = takes(converted)
    for index, (rows, most) in enumerate(PATTERNS.items()):
        seed = 1 + index * len(arrays)
        for hold_integers in (False, True):
            entries = pattern_rows(arrays, expected, batch_axes, rows, seed, hold_integers)
            if works([torch.from_numpy(x) for x in numbers(entries)]):
                outputs = _answers(converted, entries)
                if all(np.isfinite(y).all() for y in outputs):
                    yield entries, outputs, most
                    break
        if all(axis is None for axis in batch_axes):
            return


def _answers(converted: nn.Module, entries: Sequence[Mapping[str, Any]]) -> Arrays:
    return torch_outputs(converted, [torch.from_numpy(x) for x in numbers(entries)])


def _ties(graph: Graph, levels: Sequence[LevelParity], tolerances: Sequence[float]) -> Ties:
    """None where nothing inside is rounded or all is exact."""
    rounds = any(
        node.op_type in ROUNDING or graph.attribute(node, "accuracy_level", 0) == ROUNDING_LEVEL for node in graph.nodes
    )
    if not rounds or all(level.max_abs_diff == 0 for level in levels):
        return Ties()
    here = max(level.beyond_tolerance for level in levels)
    furthest = max(level.max_abs_diff for level in levels)
    allowed = TIES_TIMES * here + int(TIES_SHARE * levels[0].outputs)
    return Ties(allowed, max(TIES_TIMES * furthest, TIES_REACH * max(tolerances) / TOLERANCE))
