"""What a file needs of the machine it runs on: it stands in the receipt, and `check` says what is not met.

Measured with the files of `python -m benchmarks --only runtimes`:

opset 25        onnxruntime 1.24 and onnx 1.20 are the first that load it
8-bit inputs    of MatMulNBits: AVX2 or better, prepacked weights, with 2-bit weights onnxruntime 1.29; else floats
INT8 products   processors without VNNI multiply bytes in pairs and cut each sum off at 16 bits, if weights are INT8
AMX             onnxruntime up to 1.24 is wrong there, if outputs modulo 32 are 17 to 31, from 64 rows on
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from export.read.codes import EIGHT_BITS
from export.read.files import FileError
from export.read.graph import SHAPES, Graph
from export.read.probes import ROUNDING_LEVEL, saturates
from export.read.runtime import Setup
from export.read.versions import installed, is_older, oldest, opset_of, too_old

WITHOUT_AMX_FAULT, ROUNDS_TWO_BITS = "1.25", "1.29"
AMX_TILE, AMX_WRONG = 32, range(17, 32)
LARGEST_INPUT = 255  # integer kernels move signed codes of an input to 0..255
PAIR_LIMIT = 2**15 - 1
PACKAGES = ("onnx", "onnxruntime")
CHANNELS = {"Gemm": 0, "Conv": 0, "MatMul": 1}  # axis of the outputs in a weight: what integer kernels replace


@dataclass(frozen=True)
class Requirement:
    """One thing that a file needs.

    Attributes:
        of: "onnx", "onnxruntime", "processor" or "session".
        value: the oldest version, an instruction set, or what a session has.
        why: what in the file needs it.
        on: only on processors with these instructions; empty for all.
    """

    of: str
    value: str
    why: str
    on: str = ""

    def __str__(self) -> str:
        if self.of in ("processor", "session"):
            return f"this file needs a {self.of} with {self.value}: {self.why}"
        return f"this file needs {self.of} {self.value} or newer{f' on processors with {self.on}' if self.on else ''}"


def requirements(graph: Graph) -> list[Requirement]:
    """All that a file needs, each once."""
    found: dict[tuple[str, str], Requirement] = {}

    def add(of: str, value: str, why: str, on: str = "") -> None:
        key = (of, on) if of in PACKAGES else (value, on)
        if key not in found or (of in PACKAGES and is_older(found[key].value, value)):
            found[key] = Requirement(of, value, why, on)

    for package, version in oldest(graph.model).items():
        add(package, version, f"opset {opset_of(graph.model)}")
    for node in graph.nodes:
        if node.op_type == "MatMulNBits" and graph.attribute(node, "accuracy_level", 0) == ROUNDING_LEVEL:
            why = f"{node.name} rounds its input to 8 bits"
            if graph.attribute(node, "bits", 4) == 2:
                add("onnxruntime", ROUNDS_TWO_BITS, f"{why}, its weights have two")
            add("processor", "AVX2", why)
            add("session", "prepacked weights", why)
        codes = _integer_weight(graph, node)
        if codes is None:
            continue
        if codes.dtype == np.int8 and 2 * LARGEST_INPUT * int(np.abs(codes.astype(np.int16)).max()) > PAIR_LIMIT:
            add("processor", "VNNI", f"two INT8 products of {node.name} may not fit into 16 bits")
        outputs = codes.shape[CHANNELS[node.op_type] ^ _is_transposed(graph, node)]
        if outputs % AMX_TILE in AMX_WRONG:
            add("onnxruntime", WITHOUT_AMX_FAULT, f"{node.name} has {outputs} outputs", on="AMX")
    return list(found.values())


def as_json(found: Sequence[Requirement]) -> dict[str, str]:
    """For the receipt: {"onnxruntime": "1.24", "onnxruntime on AMX": "1.25", "processor": "AVX2, VNNI", ...}."""
    values: dict[str, list[str]] = {}
    for requirement in found:
        key = f"{requirement.of} on {requirement.on}" if requirement.on else requirement.of
        values.setdefault(key, []).append(requirement.value)
    return {key: ", ".join(several) for key, several in values.items()}


def raise_if_too_old(graph: Graph) -> None:
    """Refuse a file before onnxruntime does.

    Raises:
        FileError: this onnxruntime is older than the file needs.
    """
    for requirement in requirements(graph):
        is_version = requirement.of == "onnxruntime" and not requirement.on
        if is_version and (problem := too_old("onnxruntime", requirement.value)):
            raise FileError(problem)


def unmet(graph: Graph, setup: Setup | None = None) -> list[str]:
    """What of the processor is not as a file needs it, a sentence each; of accuracy level 4 the kernels tell."""
    return [str(r) + said for r in requirements(graph) if (said := _what_is_missing(r, setup))]


def _what_is_missing(requirement: Requirement, setup: Setup | None) -> str:
    if requirement.value == "VNNI" and saturates(setup):
        return "; here they are cut off"
    if requirement.on == "AMX" and _has_amx() and is_older(installed("onnxruntime"), requirement.value):
        return f"; this is {installed('onnxruntime')}"
    return ""


def _integer_weight(graph: Graph, node: onnx.NodeProto) -> NDArray[np.generic] | None:
    """The codes that an integer kernel may multiply 8-bit activations by."""
    if node.op_type not in CHANNELS:
        return None
    x, weight = (graph.producer(name, SHAPES) for name in node.input[:2])
    if x is None or weight is None or x.op_type != "DequantizeLinear" or weight.op_type != "DequantizeLinear":
        return None
    stored = graph.codes(weight.input[0])
    if stored is None or graph.producer(x.input[0]) is None or graph.attribute(weight, "block_size", 0):
        return None
    if stored.read_as not in EIGHT_BITS:
        return None
    codes = graph.packed[stored.tensor.name].codes.reshape(stored.shape)
    return codes.astype(np.int8 if stored.read_as == TensorProto.INT8 else np.uint8) if codes.size else None


def _is_transposed(graph: Graph, node: onnx.NodeProto) -> int:
    """Gemm: are its weights (in, out)?"""
    return int(node.op_type == "Gemm" and not graph.attribute(node, "transB", 0))


def _has_amx() -> bool:
    """As far as the operating system tells."""
    info = Path("/proc/cpuinfo")
    return info.exists() and "amx_int8" in info.read_text()
