"""check_parity: does onnxruntime answer as PyTorch does? At every optimization level, since each rewrites the graph."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx
from numpy.typing import NDArray
from torch import Tensor, nn

from export.read.compare import TOLERANCE, LevelParity, ParityError, ParityReport, compare
from export.read.files import Source, load
from export.read.proof import prove
from export.read.runtime import Setup
from export.write.divergence import find_parting
from export.write.tensors import as_inputs, to_numpy, torch_outputs
from qat_core import convert

__all__ = ["TOLERANCE", "LevelParity", "ParityError", "ParityReport", "check_parity", "parity_of", "to_numpy"]


def check_parity(
    model: nn.Module,
    path: Source,
    inputs: Tensor | Sequence[Tensor],
    *,
    setup: Setup | None = None,
) -> ParityReport:
    """Compare onnxruntime on a file with PyTorch on the model it was made from.

    Args:
        model: prepared or converted.
        path: the exported file, its bytes, or an open binary file.
        inputs: one tensor, or one for each input of the model; the first dimension is the batch.
        setup: execution providers, threads and session configuration; None is one CPU thread and the defaults.

    Returns:
        The distances at each optimization level, the outcome, where the answers part if they do, and whether a proof
        covers every input; see `ParityReport.raise_if_broken`.
    """
    tensors = as_inputs(inputs)
    converted = convert(model).cpu()
    return parity_of(converted, load(path), path, tensors, torch_outputs(converted, tensors), setup)


def parity_of(
    converted: nn.Module,
    proto: onnx.ModelProto,
    file: Source,
    inputs: Sequence[Tensor],
    expected: Sequence[NDArray[np.generic]],
    setup: Setup | None = None,
) -> ParityReport:
    """`check_parity` for a model that is converted already, and a file that may still be bytes."""
    report = compare(file, [to_numpy(t) for t in inputs], expected, setup=setup)
    report = replace(report, proof=prove(proto))
    if report.ok:
        return report
    parting = find_parting(converted, proto, inputs, expected, report, setup)
    if parting is not None and parting.explained:
        return replace(report, ok=True, outcome="rounding", parting=parting)
    return replace(report, parting=parting)
