"""How long a file takes in onnxruntime on this machine, beside its twins."""

import statistics
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from onnxruntime import InferenceSession
from torch import nn

import export
from app.turns import turn
from export.codes import packed_tensors
from export.runtime import run, session
from qat_core import QATConfig, QuantSpec, prepare

WIDTH, LAYERS, GROUP_SIZE = 1024, 4, 32
ROUNDS, ROUND_SECONDS = 25, 0.004
FLAVORS = ("qdq", "ort")


@dataclass(frozen=True)
class Timing:
    """One file.

    Attributes:
        seconds: for one row, on one thread, the median of many rounds.
        bytes: size of the file.
    """

    seconds: float
    bytes: int


def compare_speed(files: Mapping[str, bytes]) -> dict[str, Timing]:
    """Time all files in turn, round after round, so that whatever else the machine does slows all of them alike."""
    sessions = {name: session(model) for name, model in files.items()}
    inputs = {}
    for name, runtime in sessions.items():
        (entry,) = runtime.get_inputs()
        inputs[name] = [np.full((1, *entry.shape[1:]), 0.5, np.float32)]
    repeats = {name: _repeats(sessions[name], inputs[name]) for name in files}
    rounds: dict[str, list[float]] = {name: [] for name in files}
    for _ in range(ROUNDS):
        for name, runtime in sessions.items():
            start = time.perf_counter()
            for _ in range(repeats[name]):
                run(runtime, inputs[name])
            rounds[name].append((time.perf_counter() - start) / repeats[name])
    return {name: Timing(statistics.median(rounds[name]), len(model)) for name, model in files.items()}


def float_twin(model: bytes) -> bytes:
    """The same network with its weights in float32, as if nobody had quantized them."""
    proto = onnx.load_model_from_string(model)
    packed = {tensor.name: tensor for tensor in packed_tensors(proto)}
    kept = []
    for node in proto.graph.node:
        tensor = packed.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if tensor is None:
            kept.append(node)
            continue
        # a half-shifted grid is scaled by the operators that follow
        numbers = tensor.values if len(tensor.scales) == 1 else tensor.codes
        weight = numbers.astype(np.float32).reshape(tensor.shape)
        proto.graph.initializer.append(numpy_helper.from_array(weight, node.output[0]))
    del proto.graph.node[:]
    proto.graph.node.extend(kept)
    read = {name for node in kept for name in node.input}
    initializers = [tensor for tensor in proto.graph.initializer if tensor.name in read]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(initializers)
    del proto.metadata_props[:]
    return proto.SerializeToString()


_lock = threading.Lock()
_large: dict[str, Timing] = {}


def large_network() -> dict[str, Timing]:
    """Four layers of 1024 x 1024 as float32, "qdq" and "ort": measured once, remembered as long as the server runs."""
    with _lock:
        if not _large:
            files = {}
            with turn(), TemporaryDirectory(prefix="qat-") as folder, torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                layers = [nn.Linear(WIDTH, WIDTH) for _ in range(LAYERS)]
                model = prepare(
                    nn.Sequential(*layers), QATConfig(QuantSpec(granularity="per_group", group_size=GROUP_SIZE))
                )
                for flavor in FLAVORS:
                    path = Path(folder) / f"{flavor}.onnx"
                    export.export_onnx(model, torch.randn(2, WIDTH), path, flavor=flavor)
                    files[flavor] = path.read_bytes()
            _large.update(compare_speed({"fp32": float_twin(files["qdq"]), **files}))
        return dict(_large)


def _repeats(runtime: InferenceSession, inputs: list[np.ndarray]) -> int:
    """How many runs fill a round; the first of them warm up."""
    for _ in range(3):
        run(runtime, inputs)
    start = time.perf_counter()
    run(runtime, inputs)
    return max(1, min(200, int(ROUND_SECONDS / (time.perf_counter() - start))))
