"""Where do onnxruntime and PyTorch diverge? The first tensor that differs, and how far it lies from a rounding tie.

Floating-point sums in another order differ in the last place. Nobody notices, unless such a sum lies on the edge
between two codes: then the next layer sees another code, and every number behind it moves. That is a rounding tie,
and it is the only difference that a faithful file may show; anything else is a fault.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from export.read.compare import Divergence, LevelParity
from export.read.distance import default_tolerance, distances, ulp
from export.read.graph import Graph
from export.read.runtime import Setup, run, session
from export.write.storage import input_name
from export.write.tensors import to_numpy, twin
from qat_core import FakeQuantize
from qat_core.layers import QuantLayer, QuantLinear
from qat_core.processes import in_transform

TIE_ULPS = 16  # of the tensor's largest number: what a few hundred additions in another order can move a sum


@dataclass(frozen=True)
class Probe:
    """One tensor inside the model, as torch has it.

    Attributes:
        module: that answers it, or whose input it is the codes of.
        torch: its numbers, or its codes counted from that of zero.
        tie_ulps: of each element; None where the tensor holds numbers, not codes.
        encode: makes such codes of numbers.
    """

    module: str
    torch: NDArray[np.generic]
    tie_ulps: NDArray[np.float64] | None = None
    encode: Callable[[NDArray[np.generic]], NDArray[np.generic]] | None = None

    def differs(self, found: NDArray[np.generic]) -> NDArray[np.bool_]:
        """From what the file has: codes, or numbers where a kernel makes the codes inside."""
        if self.encode is not None:
            codes = self.encode(found) if found.dtype.kind == "f" else found
            return np.asarray(codes.astype(np.int64) != self.torch.astype(np.int64))
        (distance,) = distances([found], [self.torch])
        return np.asarray(distance > default_tolerance(self.torch))


Place = tuple[str, Probe]  # a value of the file, and what torch has there


def find_divergence(
    probes: Sequence[Probe],
    graph: Graph,
    inputs: Sequence[NDArray[np.generic]],
    expected: Sequence[NDArray[np.generic]],
    tolerances: Sequence[float],
    levels: Sequence[LevelParity],
    setup: Setup | None = None,
) -> Divergence | None:
    """The first one at the worst level, explained only if ties explain every row that is off at every level.

    None where no tensor inside the graph can be compared.
    """
    places = _places(probes, graph)
    if not places:
        return None
    batched = zip(inputs, graph.batch_axes, strict=True)
    fixed = next((len(x) for x in inputs if x.ndim), 1)  # where a file takes one size only
    batch = max((x.shape[axis] for x, axis in batched if axis is not None), default=fixed)
    found = []
    for level in [level.level for level in levels if level.beyond_tolerance]:
        answers = run(session(graph.model, level, setup), inputs)
        away = distances(answers, expected)
        off = [d > tolerance for d, tolerance in zip(away, tolerances, strict=True)]
        inside = _values([value for value, _ in places], graph, inputs, level, setup)
        first = _first_difference(level, places, inside, off, graph.model.graph.output[0].name, batch)
        finite = all(np.isfinite(d).all() for d in away)  # no tie makes a NaN
        found.append(first if finite else replace(first, explained=False))
    return next((divergence for divergence in found if not divergence.explained), found[-1])


def _places(probes: Sequence[Probe], graph: Graph) -> list[Place]:
    """Where the file has the same tensors, which bear the names of the modules that they come from."""
    codes: dict[str, str] = {}
    inputs: dict[str, str] = {}
    numbers: dict[str, str] = {}
    for node in graph.nodes:
        module = node.name.rpartition("/")[0]
        if node.op_type == "QuantizeLinear":
            codes[module] = node.output[0]
        elif node.op_type != "DequantizeLinear" and node.input:
            if node.input[0] not in graph.tensors:
                inputs.setdefault(module, node.input[0])
            numbers[module] = node.output[0]
    given = {value.name for value in graph.model.graph.input}
    places: list[Place] = []
    for probe in probes:
        if probe.encode is None:
            value = numbers.get(probe.module)
        else:
            made_inside = inputs.get(probe.module)
            value = codes.get(input_name(probe.module)) or (None if made_inside in given else made_inside)
        if value is not None:
            places.append((value, probe))
    return places


def _first_difference(
    level: str,
    places: Sequence[Place],
    inside: Sequence[NDArray[np.generic]],
    off: Sequence[NDArray[np.bool_]],
    output: str,
    batch: int,
) -> Divergence:
    """Where what is `inside` the file first differs in a row that is off, or the output if nothing inside does."""
    unexplained = np.logical_or.reduce([_rows(mask, batch) for mask in off])
    first, furthest = None, 0.0
    for (value, probe), numbers in zip(places, inside, strict=True):
        if numbers.shape != probe.torch.shape:  # a tensor of a module's that the file has under another name
            continue
        differs = probe.differs(numbers)
        rows = _rows(differs, batch) & unexplained
        if not rows.any():
            continue
        first = first or (value, probe, differs)
        if probe.tie_ulps is None:
            break
        furthest = max(furthest, float(probe.tie_ulps[_only(differs, rows)].max()))
        if furthest > TIE_ULPS:
            break
        unexplained &= ~rows
    if first is None:
        return Divergence(level, output, sum(int(mask.sum()) for mask in off), off[0].size, None, False)
    value, probe, differs = first
    ties = None if probe.tie_ulps is None else furthest
    return Divergence(level, value, int(differs.sum()), differs.size, ties, not unexplained.any())


def _rows(mask: NDArray[np.bool_], batch: int) -> NDArray[np.bool_]:
    """Which rows of the batch have a True; where a tensor has no batch, all of them or none."""
    if mask.ndim and mask.shape[0] == batch:
        return np.asarray(mask.reshape(batch, -1).any(1))
    return np.full(batch, mask.any())


def _only(mask: NDArray[np.bool_], rows: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The mask without what follows from an earlier difference in the same row."""
    if mask.ndim and mask.shape[0] == len(rows):
        return np.asarray(mask & rows.reshape(-1, *[1] * (mask.ndim - 1)))
    return mask


def _values(
    names: Sequence[str], graph: Graph, inputs: Sequence[NDArray[np.generic]], level: str, setup: Setup | None
) -> list[NDArray[np.generic]]:
    """Tensors inside the graph as onnxruntime computes them; codes in 16 bits, counted from that of zero.

    Numbers are watched in another session than codes: an integer kernel makes codes straight from its sums, which are
    no tensors of their own until they are asked for, and rounds otherwise then.
    """
    codes = {name: node for name, node in graph.producers.items() if node.op_type == "QuantizeLinear"}
    found: dict[str, NDArray[np.generic]] = {}
    for wanted in ({n: f"{n}/Cast" for n in names if n in codes}, {n: n for n in names if n not in codes}):
        if not wanted:
            continue
        watched = onnx.ModelProto()
        watched.CopyFrom(graph.model)
        for name, value in wanted.items():
            if name in codes:
                cast = onnx.helper.make_node("Cast", [name], [value], to=onnx.TensorProto.INT16)
                watched.graph.node.append(cast)
            if value not in graph.outputs:
                watched.graph.output.append(onnx.ValueInfoProto(name=value))
        runtime = session(watched, level, setup)
        answers = dict(zip((output.name for output in runtime.get_outputs()), run(runtime, inputs), strict=True))
        found |= {name: answers[value] for name, value in wanted.items()}
    for name in codes.keys() & found.keys():
        found[name] = found[name] - graph.array(codes[name].input[2]).astype(np.int16)
    return [found[name] for name in names]


@torch.no_grad()
def watch(converted: nn.Module, inputs: Sequence[Tensor]) -> list[Probe]:
    """Codes of every activation quantizer and outputs of every module that ran once, in the order of the forward.

    Inside of a transform of torch.func a tensor is a row of a batch, and has no numbers of its own.
    """
    model = twin(converted).eval()
    seen: list[Probe] = []
    for name, module in model.named_modules():
        if isinstance(module, QuantLayer) and (quantizer := module.input_quantizer) is not None:
            in_float = quantizer.spec.dynamic or quantizer.spec.half_shift
            if isinstance(module, QuantLinear) or not in_float:  # rows of others are not those that the file has
                _watch_codes(name, quantizer, seen)
        if isinstance(module, QuantLayer) or not list(module.children()):
            module.register_forward_hook(_watch_output(name, seen))
    model(*(x.clone() for x in inputs))
    calls = Counter((probe.module, probe.encode is None) for probe in seen)
    return [probe for probe in seen if calls[probe.module, probe.encode is None] == 1]


def _watch_codes(name: str, quantizer: FakeQuantize, seen: list[Probe]) -> None:
    with_scale = quantizer.with_scale

    def codes(x: Tensor) -> NDArray[np.generic]:
        found = to_numpy(quantizer.codes(x)).astype(np.int16)
        zero_point = None if quantizer.spec.symmetric else quantizer.source.qparams(x)[1]
        return found if zero_point is None else found - to_numpy(zero_point).astype(np.int16)

    def encode(found: NDArray[np.generic]) -> NDArray[np.generic]:
        return codes(torch.from_numpy(found))

    def watch(x: Tensor, at_least: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if in_transform():
            return with_scale(x, at_least)
        ties = _ulps_from_tie(to_numpy(x), to_numpy(_scale(quantizer, x)), quantizer.spec.shift)
        seen.append(Probe(name, codes(x), ties, encode))
        return with_scale(x, at_least)

    quantizer.__dict__["with_scale"] = watch


def _scale(quantizer: FakeQuantize, x: Tensor) -> Tensor:
    """One for the tensor, or where it is dynamic one for each element."""
    return quantizer.values(torch.ones_like(x), x) if quantizer.spec.dynamic else quantizer.source.qparams(x)[0]


def _ulps_from_tie(x: NDArray[np.generic], scale: NDArray[np.generic], shift: float) -> NDArray[np.float64]:
    steps = x.astype(np.float64) / scale.astype(np.float64) - shift
    return np.asarray(np.abs(steps - np.floor(steps) - 0.5) * scale / ulp(x))


def _watch_output(name: str, seen: list[Probe]):  # type: ignore[no-untyped-def]
    def watch(module: nn.Module, inputs: object, output: object) -> None:
        if isinstance(output, Tensor) and not in_transform():
            seen.append(Probe(name, to_numpy(output).copy()))  # what follows may write into it

    return watch
