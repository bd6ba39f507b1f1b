"""The receipt: what was promised, inside the file, so that any machine the file reaches can check it.

It lies in the model's metadata as JSON: a small sample input, the outputs PyTorch gave for it, their tolerances,
versions, settings, a hash of the integer codes and one of the whole graph. `check` recomputes all of it, without
torch. It notices what was changed; a signature, which tells who did, is another thing.
"""

import base64
import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from export.read.codes import packed_bytes
from export.read.compare import ParityReport, compare
from export.read.files import Source
from export.read.graph import Graph
from export.read.kernels import find_kernels
from export.read.proof import prove
from export.read.runtime import InputsError, Setup

KEY = "qat_receipt"
FORMAT = 4
SAMPLE_ROWS = 8
SAMPLE_NUMBERS = 64  # of an input or an output; more would weigh more than the weights
PATTERN_STEP, PATTERN_LEVELS = 40503, 65536  # step / levels is near the golden ratio: even, and never periodic


class ReceiptError(ValueError):
    """A file has no receipt, or does not keep what its receipt promises; the message says which."""


def sample(
    inputs: Sequence[NDArray[np.generic]], batch_axes: Sequence[int | None], first_row: int = 0
) -> list[dict[str, Any]]:
    """Inputs as the receipt keeps them, for JSON: small ones number by number, large ones as a recipe.

    A few rows from all over a batch, beginning at `first_row`, or one row where a row is large. Inputs without an axis
    for the batch are kept whole.
    """
    batched = [(x, axis) for x, axis in zip(inputs, batch_axes, strict=True) if axis is not None]
    batch = max((x.shape[axis] for x, axis in batched), default=1)
    largest = max((x.size // max(batch, 1) for x, _ in batched), default=1)
    count = min(SAMPLE_ROWS, batch, max(SAMPLE_NUMBERS // max(largest, 1), 1))
    rows = (np.linspace(0, batch - 1, count).astype(np.int64) + first_row) % max(batch, 1)
    sampled = [x if axis is None else x.take(rows, axis) for x, axis in zip(inputs, batch_axes, strict=True)]
    return [_as_pattern(x) if x.size > SAMPLE_NUMBERS else _to_json(x) for x in sampled]


def numbers(entries: Sequence[Mapping[str, Any]]) -> list[NDArray[np.generic]]:
    """The inputs of a sample."""
    return [_pattern(entry) if "low" in entry else _from_json(entry) for entry in entries]


def attach(
    graph: Graph,
    inputs: Sequence[Mapping[str, Any]],
    outputs: Sequence[NDArray[np.generic]],
    tolerances: Sequence[float],
    versions: dict[str, str],
    settings: dict[str, Any],
    kernels: dict[str, str],
) -> None:
    """Write the receipt into the model's metadata.

    Args:
        inputs, outputs: a `sample`, and what PyTorch answered to it.
        tolerances: the largest distance that keeps the promise, for each output in its unit.
        versions: package -> version that made the file.
        settings: how the file was exported.
        kernels: node -> the quick kernel that onnxruntime should run.
    """
    every = [stride(output) for output in outputs]
    receipt = {
        "format": FORMAT,
        "versions": versions,
        "settings": settings,
        "kernels": kernels,
        "inputs": inputs,
        "every": every,
        "outputs": [_to_json(output.ravel()[::step]) for output, step in zip(outputs, every, strict=True)],
        "tolerances": list(tolerances),
        "codes_sha256": hash_codes(graph.code_arrays()),
        "graph_sha256": hash_graph(graph.model),
    }
    entry = graph.model.metadata_props.add()
    entry.key, entry.value = KEY, json.dumps({**receipt, "sha256": _hash(receipt)}, separators=(",", ":"))


def read(model: onnx.ModelProto) -> dict[str, Any]:
    """The receipt of a model.

    Raises:
        ReceiptError: there is none, it cannot be understood or it was changed.
    """
    text = next((p.value for p in model.metadata_props if p.key == KEY), None)
    if text is None:
        raise ReceiptError("the file has no receipt: it was not made by export_onnx, or its metadata was removed")
    with _understanding():
        receipt = dict(json.loads(text))
        found, promised = receipt["format"], receipt.pop("sha256", None)
    if found != FORMAT:
        raise ReceiptError(f"the receipt has format {found!r}; expected {FORMAT}")
    if _hash(receipt) != promised:
        raise ReceiptError(
            f"the receipt was changed: its SHA-256 is {_hash(receipt)[:12]}..., it says {promised!r:.14}..."
        )
    return receipt


def sample_inputs(receipt: Mapping[str, Any]) -> list[NDArray[np.generic]]:
    """The numbers of the sample.

    Raises:
        ReceiptError: they cannot be understood.
    """
    with _understanding():
        return numbers(receipt["inputs"])


def check(path: Source, setup: Setup | None = None) -> ParityReport:
    """Recompute a file's receipt with the onnxruntime of this machine.

    Args:
        path: the file, its bytes, or an open binary file.
        setup: execution providers, threads and session configuration; None is one CPU thread and the defaults.

    Returns:
        onnxruntime at every optimization level against the outputs that the receipt promises, and the quick kernels
        it promises, if any.

    Raises:
        FileError: the file cannot be read or is not a valid ONNX model.
        ReceiptError: there is no receipt, it was changed, or the model is not the one it was written for.
    """
    graph = Graph.open(path)
    receipt = read(graph.model)
    _compare_hash("the integer codes were changed", hash_codes(graph.code_arrays()), receipt.get("codes_sha256"))
    beside = "something beside the codes was changed, a scale, a bias or an operator"
    _compare_hash(beside, hash_graph(graph.model), receipt.get("graph_sha256"))
    with _understanding():
        outputs = [_from_json(a) for a in receipt["outputs"]]
        tolerances, every = [float(t) for t in receipt["tolerances"]], [int(step) for step in receipt["every"]]
        promised = dict(receipt["kernels"])
        counts, promises = (len(outputs), len(tolerances), len(every)), len(graph.model.graph.output)
        if set(counts) != {promises}:
            found = "{} outputs, {} tolerances, {} strides".format(*counts)
            raise ValueError(f"{found}; expected {promises} of each")
        if not all(0 <= t < math.inf for t in tolerances) or min(every) < 1:
            raise ValueError(f"{tolerances=}, {every=}; expected finite tolerances and strides of at least 1")
    try:
        levels = compare(path, sample_inputs(receipt), outputs, tolerances, setup, every)
    except InputsError as error:
        raise ReceiptError(f"the receipt's inputs are not the model's: {error}") from error
    kernels = find_kernels(path, promised, setup=setup) if promised else None
    return ParityReport(tolerances, levels, proof=prove(graph), kernels=kernels, axes=graph.axes)


@contextmanager
def _understanding() -> Iterator[None]:
    """Reading what anybody may have written."""
    try:
        yield
    except (ValueError, TypeError, KeyError, RecursionError, MemoryError) as error:
        raise ReceiptError(f"the receipt cannot be understood: {error}") from error


def stride(output: NDArray[np.generic]) -> int:
    """Of an output's numbers, every how many-th is promised."""
    return max(math.ceil(output.size / SAMPLE_NUMBERS), 1)


def hash_codes(codes: Iterable[tuple[str, NDArray[np.generic]]]) -> str:
    """SHA-256 over names, shapes and values of integer codes."""
    digest = hashlib.sha256()
    for name, array in codes:
        digest.update(f"{name}{array.shape}".encode())
        digest.update(array.astype("<i4").tobytes())
    return digest.hexdigest()


def hash_graph(model: onnx.ModelProto) -> str:
    """SHA-256 over all that decides an answer: operators, tensors by value, inputs, outputs and opsets."""
    digest, graph = hashlib.sha256(), model.graph
    for tensor in graph.initializer:
        digest.update(f"{tensor.name}{tensor.data_type}{list(tensor.dims)}".encode())
        digest.update(packed_bytes(tensor))
    for part in (*graph.node, *graph.input, *graph.output, *model.opset_import, *model.functions):
        digest.update(part.SerializeToString(deterministic=True))
    return digest.hexdigest()


def _compare_hash(sentence: str, found: str, promised: Any) -> None:
    if found != promised:
        raise ReceiptError(f"{sentence}: the SHA-256 is {found[:12]}..., the receipt says {str(promised)[:12]}...")


def _hash(receipt: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(receipt, sort_keys=True).encode()).hexdigest()


def _to_json(array: NDArray[np.generic]) -> dict[str, Any]:
    """Little-endian bytes in base64."""
    data = array.astype(array.dtype.newbyteorder("<")).tobytes()
    return {"dtype": array.dtype.name, "shape": list(array.shape), "base64": base64.b64encode(data).decode()}


def _from_json(entry: Mapping[str, Any]) -> NDArray[np.generic]:
    data = base64.b64decode(entry["base64"], validate=True)
    dtype = np.dtype(entry["dtype"])
    array: NDArray[np.generic] = np.frombuffer(data, dtype.newbyteorder("<")).astype(dtype).reshape(entry["shape"])
    return array


def _as_pattern(array: NDArray[np.generic]) -> dict[str, Any]:
    """A recipe for numbers of the same shape and range."""
    low, high = (float(end) if array.dtype.kind == "f" else int(end) for end in (array.min(), array.max()))
    return {"dtype": array.dtype.name, "shape": list(array.shape), "low": low, "high": high}


def _pattern(entry: Mapping[str, Any]) -> NDArray[np.generic]:
    """Numbers spread evenly from low to high, from whole-number arithmetic: the same on every machine."""
    steps = np.arange(math.prod(entry["shape"]), dtype=np.int64) * PATTERN_STEP % PATTERN_LEVELS
    low, high, dtype = entry["low"], entry["high"], np.dtype(entry["dtype"])
    if dtype.kind == "f":
        values = low + (high - low) * (steps / PATTERN_LEVELS)
    else:
        values = low + steps % (int(high) - int(low) + 1)
    array: NDArray[np.generic] = values.astype(dtype).reshape(entry["shape"])
    return array
