"""How fast a file is beside float32, and which layers cost where it is slower. Needs no torch.

A few short rounds at the shapes of an example, as in `latency.py`. Only a file that is slower is asked why: onnxruntime
then says how long each operator takes, in the file and in its float32 twin, and the layers that take longest over that
are named.
"""

import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from export.read.files import Source, file_bytes, write_in_two
from export.read.graph import SHAPES, Graph
from export.read.kernels import expected_kernels
from export.read.latency import FOLD_WEIGHTS, as_float, rounds_of
from export.read.runtime import Setup, run, session
from export.read.speed import ALIKE, Speed

ROUNDS, BLOCK_SECONDS, MOST_SECONDS = 9, 0.002, 1.0
LARGE = 2**22  # bytes of a file
MANY_ROUNDS = 31  # where something hangs on it
PROFILED_CALLS = 5
UNPACKS = "their weights become floats anew in every call"
ROUNDS_IN_FLOAT = "their activations are rounded in float operators"
NO_QUICKER = "MatMulNBits is no quicker on this processor"
TOO_SMALL = "so few products are as quick in float32"
Arrays = Sequence[NDArray[np.generic]]


def timed_in_turn(sessions: Sequence[ort.InferenceSession], inputs: Arrays, rounds: int) -> list[list[float]]:
    """Seconds of one call of each session in every round, for about a second in all."""
    for runtime in sessions:
        run(runtime, inputs, shrink=True)  # else what the first call took is kept beside what all others take
    calls = [partial(run, runtime, inputs) for runtime in sessions]
    return rounds_of(calls, rounds, BLOCK_SECONDS, time.perf_counter() + MOST_SECONDS)


def speed_of(
    file: Source | onnx.ModelProto, graph: Graph, inputs: Arrays, setup: Setup | None = None, rounds: int = ROUNDS
) -> Speed:
    """Time a file beside its float32 twin, in turn, or one after the other where both together take much memory.

    Args:
        file: what a session loads.
        graph: the same, opened.
        inputs: of the shapes that matter.
        setup: of the file's session; the twin's has as many threads.
        rounds: how often each is timed, within a second or so.

    Raises:
        FileError: onnxruntime cannot load one of them.
        InputsError: they do not take the inputs.
    """
    setup = setup or Setup()
    in_float = Setup(setup.providers, setup.threads, FOLD_WEIGHTS)
    with tempfile.TemporaryDirectory() as folder:
        twin = Path(folder, "float32.onnx")
        write_in_two(as_float(graph), twin)  # a session that folds codes of one file holds them beside what it made
        networks: list[tuple[Source | onnx.ModelProto, Setup]] = [(twin, in_float), (file, setup)]
        seconds: list[list[float]] = []
        for part in [[network] for network in networks] if file_bytes(twin) > LARGE else [networks]:
            seconds += timed_in_turn([session(model, setup=its) for model, its in part], inputs, rounds)
        fp32, own = (1e3 * min(found) for found in seconds)  # whatever else the machine does only adds
        times = fp32 / own
        if times * ALIKE > 1:
            return Speed(times, own, fp32, setup.threads)
        names = layers_of(graph)
        before, after = (by_layer(model, inputs, its, names) for model, its in networks)
    lost = {name: cost - before.get(name, 0.0) for name, cost in after.items() if name in names}
    costly = {name: cost for name, cost in sorted(lost.items(), key=lambda item: -item[1]) if cost > 0}
    return Speed(times, own, fp32, setup.threads, costly, {name: _why(graph, name) for name in costly})


def layers_of(graph: Graph) -> set[str]:
    """Names of what multiplies by weights, or looks them up."""
    looked_up = {lookup.tensor.name for lookup in graph.lookups.values()}
    found = set()
    for node in graph.nodes:
        sources = [graph.producer(name, SHAPES) for name in node.input]
        reads_codes = any(name in graph.packed for name in node.input) and node.op_type != "DequantizeLinear"
        dequantizes = any(s is not None and s.op_type == "DequantizeLinear" for s in sources)
        if reads_codes or looked_up.intersection(node.input) or (dequantizes and node.op_type != "QuantizeLinear"):
            found.add(node.name.rpartition("/")[0])
    return found


def by_layer(model: Source | onnx.ModelProto, inputs: Arrays, setup: Setup, names: set[str]) -> dict[str, float]:
    """Layer -> milliseconds that its operators take in one call; what belongs to none of these is in no layer."""
    with tempfile.TemporaryDirectory() as folder:
        runtime = session(model, setup=setup, profile=Path(folder, "profile"))
        run(runtime, inputs, shrink=True)
        for _ in range(PROFILED_CALLS):
            run(runtime, inputs)
        events = json.loads(Path(runtime.end_profiling()).read_text())
    durations: dict[str, list[float]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            durations[event["name"].removesuffix("_kernel_time")].append(event["dur"])
    found: dict[str, float] = defaultdict(float)
    for node, microseconds in durations.items():
        found[layer_of(node, names)] += min(microseconds) / 1e3
    return dict(found)


def layer_of(node: str, names: set[str]) -> str:
    """The layer that an operator belongs to, by its name: 0.weight/DQ and "fused 0/Gemm" are of 0."""
    scope = node.removeprefix("fused ").partition("_token_")[0].rpartition("/")[0]
    while scope and scope not in names:
        scope = scope.rpartition(".")[0]
    return scope


def _why(graph: Graph, layer: str) -> str:
    """Why a layer takes longer than in float32."""
    own = [node for node in graph.nodes if node.name.rpartition("/")[0] == layer]
    if any(node.op_type == "Round" for node in own):
        return ROUNDS_IN_FLOAT
    quick, _ = expected_kernels(graph)
    for node in own:
        weights = [graph.producer(name, SHAPES) for name in node.input[1:2]]
        if node.name not in quick and any(w is not None and w.op_type == "DequantizeLinear" for w in weights):
            return UNPACKS
    return NO_QUICKER if any(node.op_type == "MatMulNBits" for node in own) else TOO_SMALL
