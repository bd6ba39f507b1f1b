"""The receipt: what was promised, inside the file, so that any machine the file reaches can check it.

It lies in the model's metadata as JSON: sample inputs, the outputs PyTorch gave for them, their tolerances, versions,
settings, what the file needs, a hash of the integer codes and one of the whole graph. `check` recomputes all of it,
without torch. It notices what was changed; a signature, which tells who did, is another thing.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from export.read.codes import packed_bytes
from export.read.compare import ParityReport, Ties, compare_samples
from export.read.distance import ParityError
from export.read.files import FileError, Source
from export.read.graph import Graph
from export.read.kernels import find_kernels, see_activations
from export.read.proof import prove
from export.read.requires import as_json, raise_if_too_old, requirements, unmet
from export.read.runtime import InputsError, Setup
from export.read.sample import Sample, from_json, numbers, sample_of

KEY = "qat_receipt"
FORMAT, ORDERED = 5, 4  # in the older one hashes depended on the order of tensors and operators


class ReceiptError(ValueError):
    """A file has no receipt, or does not keep what its receipt promises; the message says which."""


def attach(
    graph: Graph,
    samples: Sequence[Mapping[str, Any]],
    tolerances: Sequence[float],
    ties: Ties,
    versions: dict[str, str],
    settings: dict[str, Any],
    kernels: dict[str, str],
) -> None:
    """Write the receipt into the model's metadata.

    Args:
        samples: each {"inputs": entries of `sample.py`, "outputs": what was promised of PyTorch's answers to them}.
        tolerances: the largest distance that keeps the promise, for each output in its unit.
        ties: what may be further away.
        versions: package -> version that made the file.
        settings: how the file was exported.
        kernels: node -> the quick kernel that onnxruntime should run.
    """
    receipt = {
        "format": FORMAT,
        "versions": versions,
        "settings": settings,
        "requires": as_json(requirements(graph)),
        "kernels": kernels,
        "samples": samples,
        "tolerances": list(tolerances),
        "ties": asdict(ties),
        "codes_sha256": hash_codes(graph),
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
    if found not in (FORMAT, ORDERED):
        raise ReceiptError(f"the receipt has format {found!r}; expected {ORDERED} or {FORMAT}")
    if _hash(receipt) != promised:
        raise ReceiptError(
            f"the receipt was changed: its SHA-256 is {_hash(receipt)[:12]}..., it says {promised!r:.14}..."
        )
    return receipt


def sample_inputs(receipt: Mapping[str, Any]) -> list[NDArray[np.generic]]:
    """The numbers of the first sample, which is of the example that the file was made with.

    Raises:
        ReceiptError: they cannot be understood.
    """
    with _understanding():
        return numbers(receipt["inputs"] if receipt["format"] == ORDERED else receipt["samples"][0]["inputs"])


def check(path: Source, setup: Setup | None = None) -> ParityReport:
    """Recompute a file's receipt with the onnxruntime of this machine.

    Args:
        path: the file, its bytes, or an open binary file.
        setup: execution providers, threads and session configuration; None is one CPU thread and the defaults.

    Returns:
        onnxruntime at every optimization level against the outputs that the receipt promises, the quick kernels it
        promises, if any, what the file needs and has not here, and whether it was rewritten since and answers the same.

    Raises:
        FileError: the file cannot be read, is not a valid ONNX model, or needs another onnx or onnxruntime.
        ReceiptError: there is no receipt, it was changed, or the model is not the one it was written for.
    """
    graph = Graph.open(path)
    receipt = read(graph.model)
    raise_if_too_old(graph)
    changed = _changed(graph, receipt)
    with _understanding():
        samples = [_old_sample(receipt)] if receipt["format"] == ORDERED else _samples(receipt)
        tolerances, ties = [float(t) for t in receipt["tolerances"]], Ties(**receipt.get("ties", {}))
        promised = dict(receipt["kernels"])
        counts = {len(sample.outputs) for sample in samples} | {len(tolerances), len(graph.model.graph.output)}
        if not samples:
            raise ValueError("no sample; expected one or more")
        if len(counts) != 1:
            raise ValueError(f"{sorted(counts)} outputs, tolerances and promises; expected as many of each")
        if not all(0 <= t < math.inf for t in (*tolerances, ties.numbers, ties.distance)):
            raise ValueError(f"{tolerances=}, {ties}; expected finite tolerances")
    try:
        levels = compare_samples(path, samples, tolerances, setup)
    except InputsError as error:
        raise ReceiptError(f"{changed or 'the receipt'}: its inputs are not the model's: {error}") from error
    except (ParityError, FileError) as error:
        if changed:
            raise ReceiptError(f"{changed}: {error}") from error
        raise
    report = ParityReport(tolerances, levels, None, prove(graph), axes=graph.axes, ties=ties)
    if not changed:
        kernels = see_activations(find_kernels(path, promised, setup=setup), graph, setup) if promised else None
        return replace(report, kernels=kernels, unmet=unmet(graph, setup))
    if not report.ok:
        raise ReceiptError(changed)
    return replace(report, rewritten=changed, unmet=unmet(graph, setup))


def _changed(graph: Graph, receipt: Mapping[str, Any]) -> str:
    """What of the file is no longer as it was when the receipt was written; nothing if it is."""
    ordered = receipt["format"] == ORDERED
    return _differs(
        "the integer codes were changed", hash_codes(graph, ordered), receipt.get("codes_sha256")
    ) or _differs(
        "something beside the codes was changed, a scale, a bias or an operator",
        hash_graph(graph.model, ordered),
        receipt.get("graph_sha256"),
    )


def _samples(receipt: Mapping[str, Any]) -> list[Sample]:
    return [sample_of(entry["inputs"], entry["outputs"]) for entry in receipt["samples"]]


def _old_sample(receipt: Mapping[str, Any]) -> Sample:
    """The one of format 4, of whose outputs every so many-th number is there."""
    outputs, every = [from_json(entry) for entry in receipt["outputs"]], [int(step) for step in receipt["every"]]
    if min(every) < 1 or len(every) != len(outputs):
        raise ValueError(f"{every=} for {len(outputs)} outputs; expected strides of at least 1, one of each")
    return Sample(numbers(receipt["inputs"]), outputs, every, [""] * len(outputs))


@contextmanager
def _understanding() -> Iterator[None]:
    """Reading what anybody may have written."""
    try:
        yield
    except (ValueError, TypeError, KeyError, RecursionError, MemoryError) as error:
        raise ReceiptError(f"the receipt cannot be understood: {error}") from error


def hash_codes(graph: Graph, ordered: bool = False) -> str:
    """SHA-256 over names, shapes and values of integer codes, in the file's order or in that of their names."""
    digest = hashlib.sha256()
    for name, array in graph.code_arrays(None if ordered else sorted(graph.tensors)):
        digest.update(f"{name}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array, "<i4").data)
    return digest.hexdigest()


def hash_graph(model: onnx.ModelProto, ordered: bool = False) -> str:
    """SHA-256 over all that decides an answer: operators, tensors by value, inputs, outputs and opsets."""
    digest, graph = hashlib.sha256(), model.graph
    for tensor in graph.initializer if ordered else sorted(graph.initializer, key=lambda tensor: tensor.name):
        digest.update(f"{tensor.name}{tensor.data_type}{list(tensor.dims)}".encode())
        digest.update(packed_bytes(tensor))
    parts = [*graph.node, *graph.input, *graph.output, *model.opset_import, *model.functions]
    texts = [part.SerializeToString(deterministic=True) for part in parts]
    for text in texts if ordered else sorted(texts):
        digest.update(text)
    return digest.hexdigest()


def _differs(sentence: str, found: str, promised: Any) -> str:
    if found == promised:
        return ""
    return f"{sentence}: the SHA-256 is {found[:12]}..., the receipt says {str(promised)[:12]}..."


def _hash(receipt: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(receipt, sort_keys=True).encode()).hexdigest()
