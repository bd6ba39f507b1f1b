"""Is a file the model it was made from? Its codes stand for the model's weights, and onnxruntime answers the same.

At every optimization level, since each rewrites the graph.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from torch import Tensor, nn

from export.read.compare import ParityReport, compare
from export.read.distance import ParityError, default_tolerance
from export.read.files import Source, first_line
from export.read.graph import Graph
from export.read.kernels import Kernels
from export.read.proof import prove
from export.read.requires import unmet
from export.read.runtime import NO_INTEGER_KERNELS, InputsError, Setup
from export.write.call import Call
from export.write.divergence import find_divergence, watch
from export.write.reference import reference
from export.write.storage import IN_FLOAT
from export.write.stored import StoredLayer
from export.write.tensors import to_numpy, torch_outputs
from qat_core.batches import unwrapped


def check_parity(
    model: nn.Module,
    path: Source,
    inputs: Any,
    *,
    setup: Setup | None = None,
) -> ParityReport:
    """Compare onnxruntime on a file with PyTorch on the model it was made from.

    Args:
        model: prepared or converted.
        path: the exported file, its bytes, or an open binary file.
        inputs: a tensor, a tuple of arguments, a mapping of keyword arguments, or a tuple that ends in one.
        setup: execution providers, threads and session configuration; None is one CPU thread and the defaults.

    Returns:
        The distances at each optimization level, the outcome, where the answers part if they do, and whether a proof
        covers every input; see `ParityReport.raise_if_broken`.
    """
    model = unwrapped(model)
    call = Call.of(model, inputs)
    made = reference(model, call)
    graph, expected = Graph.open(path), list(made.expected.values())
    return parity_of(made.model, graph, path, call.tensors, expected, setup, left=made.left)


def parity_of(
    converted: nn.Module,
    graph: Graph,
    file: Source | onnx.ModelProto,
    inputs: Sequence[Tensor],
    expected: Sequence[NDArray[np.generic]],
    setup: Setup | None = None,
    kernels: Kernels | None = None,
    left: Sequence[str] = (),
) -> ParityReport:
    """`check_parity` for a model that is converted already and answers as expected, on a file that may be bytes."""
    arrays, tolerances = [to_numpy(t) for t in inputs], [default_tolerance(output) for output in expected]
    levels = compare(file, arrays, expected, tolerances, setup)
    divergence = None
    if any(level.beyond_tolerance for level in levels):
        divergence = find_divergence(watch(converted, inputs), graph, arrays, expected, tolerances, levels, setup)
    in_float = [*left, *(name.removesuffix(IN_FLOAT) for name in graph.tensors if name.endswith(IN_FLOAT))]
    return ParityReport(tolerances, levels, divergence, prove(graph), kernels, graph.axes, in_float=in_float)


def why_not_alike(converted: nn.Module, proto: onnx.ModelProto, inputs: Sequence[Tensor]) -> str:
    """Why a graph, not yet written, does not answer these inputs as the model does; empty where it does."""
    graph = Graph(proto)
    setup = Setup(config=NO_INTEGER_KERNELS) if unmet(graph) else None
    try:
        parity_of(converted, graph, proto, inputs, torch_outputs(converted, inputs), setup).raise_if_broken()
    except (InputsError, ParityError) as error:
        return f"with inputs of {', '.join(str(tuple(x.shape)) for x in inputs)}, {first_line(error)}"
    return ""


def assert_same_values(graph: Graph, layers: Sequence[StoredLayer]) -> None:
    """What the codes in the file stand for is each weight and bias of the forward pass, bit for bit.

    Only a zero has no sign: its code stands for +0.0, where rounding a small negative weight left -0.0. Codes that no
    answer depends on are not in the file.

    Raises:
        ParityError: it is not; the message names the layer.
    """
    for layer in layers:
        for stored, numbers in layer.on_grid():
            found, rows = graph.packed.get(stored.name), to_numpy(numbers).reshape(len(numbers), -1)
            if found is None:
                continue
            values = found.values.reshape(len(rows), -1)[:, : rows.shape[1]]  # unpadded
            if not np.array_equal(values, rows):
                raise ParityError(
                    f"the codes {stored.name!r} of layer {layer.name or 'model'!r} in the file are not those of the "
                    "forward pass"
                )
