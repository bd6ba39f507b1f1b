"""Which kernels onnxruntime really runs: read from the graph that a default session makes of a file.

Integer codes alone make nothing fast. onnxruntime has to replace QuantizeLinear, DequantizeLinear and the operator
between them by one integer kernel, and does so only where the graph has the form that it looks for. That form is what
is written here, and whether a version of onnxruntime still knows it is asked of that version.
"""

from dataclasses import dataclass, field, replace

import onnx
from onnx import TensorProto

from export.read.codes import EIGHT_BITS, code_range
from export.read.files import Source
from export.read.graph import LIMITS, SHAPES, Graph
from export.read.probes import ROUNDING_LEVEL, rounds_activations
from export.read.runtime import Setup, optimized

INTEGER_KERNELS = {"Gemm": "QGemm", "Conv": "QLinearConv"}
CROSSED = SHAPES | {"MaxPool"}  # between a sum and its codes, onnxruntime puts these behind the codes


class KernelError(RuntimeError):
    """onnxruntime does not run a file with the kernels that it was written for."""


@dataclass(frozen=True)
class Kernels:
    """What a file was written for, and what onnxruntime makes of it.

    Attributes:
        expected: node -> its kernel: "MatMulNBits", "QGemm" or "QLinearConv".
        missing: node -> what runs in its kernel's place.
        slow: layer -> why no quick kernel was expected.
        eight_bit: does every MatMulNBits at accuracy level 4 multiply by 8-bit activations? None where there is none.
    """

    expected: dict[str, str]
    missing: dict[str, str] = field(default_factory=dict)
    slow: dict[str, str] = field(default_factory=dict)
    eight_bit: bool | None = None

    def raise_if_missing(self) -> None:
        """Raises KernelError that names the first node without its kernel."""
        if self.missing:
            raise KernelError(str(self))

    def __str__(self) -> str:
        """One sentence."""
        count = len(self.expected)
        rounds = "" if self.eight_bit is None else f", with 8-bit activations: {'yes' if self.eight_bit else 'no'}"
        if not self.missing:
            kinds = " and ".join(sorted(set(self.expected.values())))
            return f"{count} layers run as {kinds}{rounds}" if count else "no layer has a quick kernel"
        node, instead = next(iter(self.missing.items()))
        return (
            f"onnxruntime runs {len(self.missing)} of {count} layers without their quick kernel: {node} as {instead}, "
            f"expected {self.expected[node]}{rounds}"
        )


def expected_kernels(graph: Graph) -> tuple[dict[str, str], dict[str, str]]:
    """What surrounds each Gemm and Conv has the form that onnxruntime looks for, or has not.

    Returns:
        Node -> its kernel, and layer -> why it has none.
    """
    kernels = {node.name: "MatMulNBits" for node in graph.nodes if node.op_type == "MatMulNBits"}
    slow: dict[str, str] = {}
    for node in graph.nodes:
        if node.op_type in INTEGER_KERNELS:
            reason = _why_float(graph, node)
            if reason:
                slow[node.name.rpartition("/")[0]] = reason
            else:
                kernels[node.name] = INTEGER_KERNELS[node.op_type]
    return kernels, slow


def find_kernels(
    model: Source,
    expected: dict[str, str],
    slow: dict[str, str] | None = None,
    setup: Setup | None = None,
) -> Kernels:
    """Look for the expected kernels in the graph that a session optimizes as far as it can."""
    running = {node.name.partition("_token_")[0]: node.op_type for node in optimized(model, setup).graph.node}
    instead = {name: running.get(name, "nothing of that name") for name in expected}
    missing = {name: op_type for name, op_type in instead.items() if op_type != expected[name]}
    return Kernels(expected, missing, slow or {})


def see_activations(kernels: Kernels, graph: Graph, setup: Setup | None = None) -> Kernels:
    """Ask the MatMulNBits at accuracy level 4, one of each size, whether they round activations as they should."""
    answers: dict[tuple[int, ...], bool] = {}
    missing = dict(kernels.missing)
    for node in graph.nodes:
        if node.op_type == "MatMulNBits" and graph.attribute(node, "accuracy_level", 0) == ROUNDING_LEVEL:
            size = tuple(graph.attribute(node, name) for name in ("bits", "block_size", "K", "N"))
            if size not in answers:
                answers[size] = rounds_activations(graph, node, setup)
            if not answers[size] and node.name in kernels.expected:
                missing.setdefault(node.name, "MatMulNBits on float activations")
    return replace(kernels, missing=missing, eight_bit=all(answers.values()) if answers else None)


def _why_float(graph: Graph, node: onnx.NodeProto) -> str:
    """What keeps onnxruntime from an integer kernel; empty if nothing does."""
    x, weight, *bias = (_dequantized(graph, name) for name in node.input if name)
    if x is None or graph.tensors[x.input[2]].data_type not in EIGHT_BITS:
        return "its input is not 8-bit codes"
    if weight is None or graph.attribute(weight, "block_size"):
        return "its weights have more than one scale a channel, or a half-shifted grid"
    stored = graph.codes(weight.input[0])
    if stored is None or stored.read_as not in EIGHT_BITS:
        return "its weights are not stored in 8 bits"
    if bias and (bias[0] is None or graph.tensors[bias[0].input[0]].data_type != TensorProto.INT32):
        return "its bias is not INT32"
    return _why_not_followed_well(graph, node)


def _why_not_followed_well(graph: Graph, node: onnx.NodeProto) -> str:
    """A QGemm may answer in float, a QLinearConv only in codes; what limits the codes must say nothing new."""
    limit = graph.reader(node)
    if limit is not None and limit.op_type in LIMITS:
        if _is_redundant(graph, limit, graph.reader(limit, CROSSED)):
            return ""
        return f"{limit.name} behind it allows other numbers than the codes that follow"
    after = graph.reader(node, CROSSED)
    if node.op_type == "Conv" and (after is None or after.op_type != "QuantizeLinear"):
        return "its output is not quantized"
    return ""


def _is_redundant(graph: Graph, limit: onnx.NodeProto, quantize: onnx.NodeProto | None) -> bool:
    """Does a Relu or Clip let all numbers pass that the codes behind it can stand for?"""
    if quantize is None or quantize.op_type != "QuantizeLinear":
        return False
    _, scale, zero_point = quantize.input
    if graph.tensors[zero_point].data_type not in EIGHT_BITS:
        return False
    codes = code_range(graph.tensors[zero_point].data_type)
    low, high = ((end - float(graph.array(zero_point))) * float(graph.array(scale)) for end in codes)
    if limit.op_type == "Relu":
        return low >= 0
    ends = limit.input[1:]
    return all(end in graph.tensors for end in ends) and bool(
        graph.array(ends[0]) <= low and high <= graph.array(ends[1])
    )


def _dequantized(graph: Graph, name: str) -> onnx.NodeProto | None:
    """The DequantizeLinear that a value comes from, through a change of shape."""
    producer = graph.producer(name, SHAPES)
    return producer if producer is not None and producer.op_type == "DequantizeLinear" else None
