"""How long does a file take, beside the same network in float32? Needs no torch.

A small file need not be a quick one, and the other way round. Files are timed in one process, in short blocks one
after the other, so that whatever slows the machine down slows all of them; what counts is the ratio within a round.
"""

import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import median, quantiles
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from export.read.codes import PackedTensor
from export.read.graph import Graph
from export.read.lookup import Lookup
from export.read.receipt import ReceiptError, read, sample_inputs
from export.read.requires import raise_if_too_old
from export.read.runtime import InputsError, Setup, run, session

BLOCK_SECONDS = 0.01
FOLD_WEIGHTS = {"session.disable_quant_qdq": "1"}  # onnxruntime then dequantizes weights once, when it loads them


@dataclass(frozen=True)
class Timing:
    """One file, or the float32 network.

    Attributes:
        name: "float32", or the file.
        milliseconds: of one call, the median over all rounds.
        speed: how many times as fast as float32, the median over all rounds.
        low, high: quartiles of the speed.
    """

    name: str
    milliseconds: float
    speed: float
    low: float
    high: float


@dataclass(frozen=True)
class Latency:
    """All files beside float32.

    Attributes:
        rows: float32 first.
        batch: rows of an input.
        threads: within an operator.
        rounds: how often each was timed.
    """

    rows: list[Timing]
    batch: int
    threads: int
    rounds: int

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def latency(
    *paths: str | os.PathLike[str],
    batch: int = 1,
    threads: int = 1,
    rounds: int = 31,
    inputs: Sequence[NDArray[np.generic]] | None = None,
) -> Latency:
    """Time files of one network beside its float32 twin, which is made from them.

    Args:
        paths: exported files of the same network, in any flavour.
        batch: rows of an input.
        threads: within an operator; 0 lets onnxruntime choose.
        rounds: how often each is timed; at least 2.
        inputs: of the shapes that matter; None is `batch` rows of the receipt's sample.

    Raises:
        FileError: a file cannot be read or is not a valid ONNX model.
        ValueError: no path, a number that is too small, or a file that does not take such a batch.
    """
    if not paths or batch < 1 or rounds < 2:
        raise ValueError(f"{len(paths)} files, batch={batch}, rounds={rounds}; expected at least 1, 1 and 2")
    graphs = [Graph.open(path) for path in paths]
    for graph in graphs:
        raise_if_too_old(graph)
    inputs = example_inputs(graphs[0].model, batch) if inputs is None else list(inputs)
    twin = as_float(graphs[0])
    setup = Setup(threads=threads)
    sessions = [session(twin, setup=Setup(threads=threads, config=FOLD_WEIGHTS))]
    sessions += [session(path, setup=setup) for path in paths]
    names = ["float32", *(os.fspath(path) for path in paths)]
    seconds = rounds_of([_runner(name, s, inputs) for name, s in zip(names, sessions, strict=True)], rounds)
    return Latency([_timing(*row, seconds[0]) for row in zip(names, seconds, strict=True)], batch, threads, rounds)


def example_inputs(model: onnx.ModelProto, batch: int) -> list[NDArray[np.generic]]:
    """The sample of the receipt, repeated or cut to so many rows; ones where there is no receipt."""
    try:
        sample = sample_inputs(read(model))
    except ReceiptError:
        sample = [_ones(value) for value in model.graph.input]
    rows = sample[0].shape[0] if sample and sample[0].ndim else 0
    return [x[np.arange(batch) % rows] if x.ndim and x.shape[0] == rows else x for x in sample]


def as_float(graph: Graph) -> onnx.ModelProto:
    """The network without rounding of activations, its weights ready to be folded into float32."""
    twin = onnx.ModelProto()
    twin.CopyFrom(graph.model)
    source: dict[str, str] = {}  # codes of activations -> the numbers they were made from
    nodes: list[onnx.NodeProto] = []
    rounding = _rounding(graph)
    rows = {lookup.numbers: lookup for lookup in graph.lookups.values()}
    for node in twin.graph.node:
        if node.output[0] in rounding:
            nodes.append(helper.make_node("Identity", list(node.input[:1]), list(node.output), name=node.name))
        elif node.output[0] in rows:
            nodes.append(_float_lookup(node, rows[node.output[0]], twin))
        elif node.op_type == "QuantizeLinear":
            source[node.output[0]] = node.input[0]
        elif node.op_type == "DequantizeLinear" and node.input[0] in source:
            nodes.append(helper.make_node("Identity", [source[node.input[0]]], list(node.output), name=node.name))
        elif node.op_type == "MatMulNBits":
            nodes += _float_matmul(node, graph.packed[node.input[1]], twin)
        else:
            nodes.append(node)
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del twin.graph.node[:]
    twin.graph.node.extend(kept)
    return twin


def _float_matmul(node: onnx.NodeProto, stored: PackedTensor, twin: onnx.ModelProto) -> list[onnx.NodeProto]:
    weight = stored.as_weight(stored.values).T  # (in, out)
    twin.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(weight), f"{node.name}/float"))
    bias = list(node.input[5:])
    product = f"{node.name}/product" if bias else node.output[0]
    nodes = [helper.make_node("MatMul", [node.input[0], f"{node.name}/float"], [product], name=node.name)]
    if bias:
        nodes.append(helper.make_node("Add", [product, bias[0]], list(node.output), name=f"{node.name}/Add"))
    return nodes


def _rounding(graph: Graph) -> set[str]:
    """Outputs of the three operators that round a row: times a factor, Round, times a scale."""
    found = set()
    for node in graph.nodes:
        before, after = graph.producer(node.input[0]) if node.input else None, graph.reader(node)
        if node.op_type != "Round" or before is None or after is None:
            continue
        if before.op_type == after.op_type == "Mul" and after.input[0] == node.output[0]:
            found |= {before.output[0], node.output[0], after.output[0]}
    return found


def _float_lookup(node: onnx.NodeProto, lookup: Lookup, twin: onnx.ModelProto) -> onnx.NodeProto:
    """What a lookup ends in becomes one of float rows; what is in front of it, nobody reads any more."""
    name = f"{lookup.tensor.name}/float"
    if all(tensor.name != name for tensor in twin.graph.initializer):
        values = np.ascontiguousarray(lookup.tensor.as_weight(lookup.tensor.values))
        twin.graph.initializer.append(numpy_helper.from_array(values, name))
    return helper.make_node("Gather", [name, lookup.indices], list(node.output), name=node.name)


def _ones(value: onnx.ValueInfoProto) -> NDArray[np.generic]:
    kind = value.type.tensor_type
    shape = [max(size.dim_value, 1) for size in kind.shape.dim]
    return np.ones(shape, helper.tensor_dtype_to_np_dtype(kind.elem_type))


def _runner(name: str, runtime: ort.InferenceSession, inputs: Sequence[NDArray[np.generic]]) -> Callable[[], object]:
    """A call, tried once.

    Raises:
        ValueError: the file does not take these inputs.
    """
    try:
        run(runtime, inputs)
    except InputsError as error:
        shapes = [value.shape for value in runtime.get_inputs()]
        raise ValueError(f"{name} takes inputs of shapes {shapes}; given {[x.shape for x in inputs]}") from error
    return lambda: run(runtime, inputs)


def rounds_of(
    calls: Sequence[Callable[[], object]], rounds: int, block: float = BLOCK_SECONDS, until: float = math.inf
) -> list[list[float]]:
    """Seconds of one call of each in every round, in a different order each time.

    Args:
        calls: what is timed.
        rounds: as many, but for those that would begin after `until`, of `time.perf_counter`; always two.
        block: seconds that one call is repeated for in each round, as long as it is shorter.
    """
    repeats = [max(1, round(block / _seconds(call, 3))) for call in calls]
    found: list[list[float]] = [[] for _ in calls]
    for number in range(rounds):
        if number >= 2 and time.perf_counter() > until:
            break
        for place in range(len(calls)):
            index = (place + number) % len(calls)
            found[index].append(_seconds(calls[index], repeats[index]))
    return found


def _seconds(call: Callable[[], object], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return max(time.perf_counter() - start, 1e-9) / repeats


def _timing(name: str, seconds: Sequence[float], baseline: Sequence[float]) -> Timing:
    low, middle, high = quantiles([one / other for one, other in zip(baseline, seconds, strict=True)], n=4)
    return Timing(name, 1e3 * median(seconds), middle, low, high)
