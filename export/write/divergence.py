"""Where do onnxruntime and PyTorch part? The first tensor that differs, and how far it lies from a rounding tie.

Floating-point sums in another order differ in the last place. Nobody notices, unless such a sum lies on the edge
between two codes: then the next layer sees another code, and every number behind it moves. That is a rounding tie,
and it is the only difference that a faithful file may show; anything else is a fault.
"""

import copy
from collections import Counter
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from export.read.compare import ParityReport, Parting, default_tolerance, distances, ulp
from export.read.runtime import Setup, run, session
from export.write.tensors import to_numpy
from qat_core import FakeQuantize
from qat_core.layers import QuantLayer, QuantLinear, quantized_layers

TIE_ULPS = 16  # of the tensor's largest number: what a few hundred additions in another order can move a sum


@dataclass(frozen=True)
class _Probe:
    """One tensor inside the model, as torch has it, and the name of the same tensor in the file.

    Attributes:
        value: its name.
        torch: its numbers or codes.
        tie_ulps: of each element; None where the tensor holds numbers, not codes.
        encode: the file has numbers where torch has codes, since a kernel makes the codes inside; this makes them.
    """

    value: str
    torch: NDArray[np.generic]
    tie_ulps: NDArray[np.float64] | None
    encode: Callable[[NDArray[np.generic]], NDArray[np.generic]] | None = None

    def differs(self, found: NDArray[np.generic]) -> NDArray[np.bool_]:
        if self.tie_ulps is not None:
            codes = self.encode(found) if self.encode else found
            return np.asarray(codes.astype(np.int64) != self.torch.astype(np.int64))
        (distance,) = distances([found], [self.torch])
        return np.asarray(distance > default_tolerance(self.torch))


def find_parting(
    converted: nn.Module,
    proto: onnx.ModelProto,
    inputs: Sequence[Tensor],
    expected: Sequence[NDArray[np.generic]],
    report: ParityReport,
    setup: Setup | None,
) -> Parting | None:
    """The first parting at the worst level, explained only if ties explain every row that is off at every level.

    None where no tensor inside the graph can be compared.
    """
    probes = _probes(converted, proto, inputs)
    if not probes:
        return None
    partings = [
        _parting_at(level.level, probes, proto, inputs, expected, report.tolerances, setup)
        for level in report.levels
        if level.code_mismatches
    ]
    return next((parting for parting in partings if not parting.explained), partings[-1])


def _parting_at(
    level: str,
    probes: Sequence[_Probe],
    proto: onnx.ModelProto,
    inputs: Sequence[Tensor],
    expected: Sequence[NDArray[np.generic]],
    tolerances: Sequence[float],
    setup: Setup | None,
) -> Parting:
    arrays = [to_numpy(t) for t in inputs]
    answers = run(session(proto, level, setup), arrays)
    off = [d > tolerance for d, tolerance in zip(distances(answers, expected), tolerances, strict=True)]
    found = _values([probe.value for probe in probes], proto, arrays, level, setup)
    unexplained = np.logical_or.reduce([_rows(mask, len(inputs[0])) for mask in off])
    first, furthest = None, 0.0
    for probe, value in zip(probes, found, strict=True):
        differs = probe.differs(value)
        rows = _rows(differs, len(inputs[0])) & unexplained
        if not rows.any():
            continue
        first = first or (probe, differs)
        if probe.tie_ulps is None:
            break
        furthest = max(furthest, float(probe.tie_ulps[_only(differs, rows)].max()))
        if furthest > TIE_ULPS:
            break
        unexplained &= ~rows
    if first is None:
        return Parting(level, proto.graph.output[0].name, sum(int(m.sum()) for m in off), off[0].size, None, False)
    probe, differs = first
    ties = None if probe.tie_ulps is None else furthest
    return Parting(level, probe.value, int(differs.sum()), differs.size, ties, not unexplained.any())


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
    names: Sequence[str], proto: onnx.ModelProto, arrays: Sequence[NDArray[np.generic]], level: str, setup: Setup | None
) -> list[NDArray[np.generic]]:
    """Tensors inside the graph as onnxruntime computes them; codes of four bits as 16, since numpy has no such type.

    Numbers are watched in another session than codes: an integer kernel makes codes straight from its sums, which are
    no tensors of their own until they are asked for, and rounds otherwise then.
    """
    codes = {node.output[0] for node in proto.graph.node if node.op_type == "QuantizeLinear"}
    found: dict[str, NDArray[np.generic]] = {}
    for together in ([name for name in names if name in codes], [name for name in names if name not in codes]):
        if together:
            found |= _watched(dict.fromkeys(together), codes, proto, arrays, level, setup)
    return [found[name] for name in names]


def _watched(
    names: Iterable[str],
    codes: Container[str],
    proto: onnx.ModelProto,
    arrays: Sequence[NDArray[np.generic]],
    level: str,
    setup: Setup | None,
) -> dict[str, NDArray[np.generic]]:
    """The tensors of those names, all in one session."""
    watched = onnx.ModelProto()
    watched.CopyFrom(proto)
    wanted = {name: f"{name}/Cast" if name in codes else name for name in names}
    for name in wanted:
        if name in codes:
            watched.graph.node.append(onnx.helper.make_node("Cast", [name], [wanted[name]], to=onnx.TensorProto.INT16))
    outputs = {output.name for output in proto.graph.output}
    watched.graph.output.extend(onnx.ValueInfoProto(name=value) for value in wanted.values() if value not in outputs)
    runtime = session(watched, level, setup)
    answers = dict(zip((output.name for output in runtime.get_outputs()), run(runtime, arrays), strict=True))
    return {name: answers[value] for name, value in wanted.items()}


@torch.no_grad()
def _probes(converted: nn.Module, proto: onnx.ModelProto, inputs: Sequence[Tensor]) -> list[_Probe]:
    """Codes of every activation quantizer and outputs of every layer that ran once, in the order of the forward."""
    model = copy.deepcopy(converted).eval()
    codes, inputs_of, numbers = _names_in_file(proto)
    seen: list[_Probe] = []
    for name, layer in quantized_layers(model):
        if layer.input_quantizer is None:
            continue
        if (value := codes.get(f"{name}.input" if name else "input")) is not None:
            _watch_codes(layer.input_quantizer, value, seen)
        elif isinstance(layer, QuantLinear) and (value := inputs_of.get(name)) is not None:
            _watch_codes(layer.input_quantizer, value, seen, made_inside=True)
    for name, module in model.named_modules():
        if name in numbers and (isinstance(module, QuantLayer) or not list(module.children())):
            module.register_forward_hook(_watch_output(numbers[name], seen))
    model(*(x.clone() for x in inputs))
    calls = Counter((probe.value, probe.encode is None) for probe in seen)
    return [probe for probe in seen if calls[probe.value, probe.encode is None] == 1]


def _names_in_file(proto: onnx.ModelProto) -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
    """Quantizer -> its codes, module -> its input if another node computes it, module -> its output: as values."""
    codes: dict[str, str] = {}
    inputs: dict[str, str] = {}
    numbers: dict[str, str] = {}
    given = {value.name for value in proto.graph.input}
    for node in proto.graph.node:
        module = node.name.rpartition("/")[0]
        if node.op_type == "QuantizeLinear":
            codes[node.input[1].removesuffix("_scale")] = node.output[0]
        elif node.op_type != "DequantizeLinear":
            inputs.setdefault(module, node.input[0])
            numbers[module] = node.output[0]
    return codes, {module: value for module, value in inputs.items() if value not in given}, numbers


def _watch_codes(quantizer: FakeQuantize, value: str, seen: list[_Probe], made_inside: bool = False) -> None:
    """Note the codes of each call; `made_inside` where the file has only what they are made of."""
    with_scale = quantizer.with_scale

    def encode(found: NDArray[np.generic]) -> NDArray[np.generic]:
        return to_numpy(quantizer.codes(torch.from_numpy(found)))

    def watch(x: Tensor, at_least: Tensor | None = None) -> tuple[Tensor, Tensor]:
        ties = _ulps_from_tie(to_numpy(x), to_numpy(_scale(quantizer, x)), quantizer.spec.shift)
        seen.append(_Probe(value, to_numpy(quantizer.codes(x)), ties, encode if made_inside else None))
        return with_scale(x, at_least)

    quantizer.__dict__["with_scale"] = watch


def _scale(quantizer: FakeQuantize, x: Tensor) -> Tensor:
    """One for the tensor, or where it is dynamic one for each element."""
    return quantizer.values(torch.ones_like(x), x) if quantizer.spec.dynamic else quantizer.source.qparams(x)[0]


def _ulps_from_tie(x: NDArray[np.generic], scale: NDArray[np.generic], shift: float) -> NDArray[np.float64]:
    steps = x.astype(np.float64) / scale.astype(np.float64) - shift
    return np.asarray(np.abs(steps - np.floor(steps) - 0.5) * scale / ulp(x))


def _watch_output(value: str, seen: list[_Probe]):  # type: ignore[no-untyped-def]
    def watch(module: nn.Module, inputs: object, output: object) -> None:
        if isinstance(output, Tensor):
            seen.append(_Probe(value, to_numpy(output), None))

    return watch
