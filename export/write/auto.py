"""flavor="auto": each layer in the form that is quickest on this machine, found by measuring and not by rules.

The whole network is traced in every form that one of its layers can have, and onnxruntime says how long each layer
takes in each: the kernels are those that a session runs, between their real neighbours. In the end the mixture is
timed whole, in turn with the network in float, since what a layer wins its neighbours may lose. All forms answer alike;
which layers a kernel is right for is asked of the kernel. Behind codes no weight may be in float, since onnxruntime
would quantize it by itself.
"""

import math
import tempfile
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from torch import nn

from export.read.costs import MANY_ROUNDS, by_layer, timed_in_turn
from export.read.files import FileError, write
from export.read.graph import Graph
from export.read.kernels import expected_kernels, find_kernels, see_activations
from export.read.requires import unmet
from export.read.runtime import InputsError, Setup, session
from export.read.speed import Choice
from export.write.storage import FORMS, is_table, stored_layers
from export.write.stored import StoredLayer
from qat_core.layers import QuantLayer, quantized_layers

WORTH = 0.95  # a larger form has to take less than so much of a smaller one's time
PASSES = 2  # over all forms, so that whatever slows the machine down for a while slows no form alone
SMALL_SHARE = 0.05  # of the call: what is small, a table above all, stays so where that costs no more
MakeGraph = Callable[[Sequence[StoredLayer]], onnx.ModelProto]


def choose(
    converted: nn.Module,
    inputs: Sequence[NDArray[np.generic]],
    graph_of: MakeGraph,
    opset_version: int | None,
    processor: str,
    read: Collection[str] = (),
) -> list[Choice]:
    """The quickest form of each layer, with what was measured; of forms that take about as long the smallest.

    Args:
        converted: what `convert` returns.
        inputs: of the shapes that matter.
        graph_of: traces the model with its layers stored so.
        opset_version: which types there are; None is all of them.
        processor: which one the file is for.
        read: layers whose weights something else reads.
    """
    names = [name for name, _ in quantized_layers(converted)]
    times: dict[str, dict[str, float]] = {name: {} for name in names}
    seen: list[dict[str, tuple[object, ...]]] = []
    candidates: list[tuple[str, set[str], onnx.ModelProto]] = []
    behind_codes = {layer.name for layer in stored_layers(converted) if layer.activation is not None}

    def stored(forms: Mapping[str, str]) -> list[StoredLayer]:
        return stored_layers(converted, opset_version=opset_version, processor=processor, forms=forms, read=read)

    for form in FORMS:
        layers = stored({name: "qdq" if form == "float" and name in behind_codes else form for name in names})
        described = {layer.name: _described(layer) for layer in layers}
        new = [name for name in names if all(before[name] != described[name] for before in seen)]
        seen.append(described)
        if form == "ort":
            new = [layer.name for layer in layers if layer.kernel]
        if new:
            candidates.append((form, set(new), graph_of(layers)))
    whole = math.inf
    for form, layers_in_form, proto in candidates * PASSES:
        found = _measured(proto, inputs, set(names))
        whole = min(whole, sum(found.values()) or whole)
        for name in layers_in_form & found.keys():
            times[name][form] = min(times[name].get(form, math.inf), found[name])
    together = _sharing(converted)
    spare = {name: SMALL_SHARE * whole * all(map(is_table, together[name].values())) for name in names}
    best = {name: _best([times[other] for other in together[name]], spare[name]) for name in names}
    in_float = {
        name: "float" if all("float" in times[other] for other in together[name]) else form
        for name, form in best.items()
    }
    if best != in_float and not _is_as_quick(graph_of(stored(best)), graph_of(stored(in_float)), inputs):
        best = in_float
    return [Choice(name, best[name], times[name]) for name in names]


def _is_as_quick(small: onnx.ModelProto, large: onnx.ModelProto, inputs: Sequence[NDArray[np.generic]]) -> bool:
    """Does the smaller of two graphs take no longer than the other, timed in turn?"""
    own, other = (min(found) for found in timed_in_turn([session(small), session(large)], inputs, MANY_ROUNDS))
    return own < (1 + SMALL_SHARE) * other


def _best(times: Sequence[dict[str, float]], spare: float) -> str:
    """The form that takes the least time for all layers that share a weight, or `spare` milliseconds more."""
    common = [form for form in FORMS if all(form in found for found in times)]
    total = {form: sum(found[form] for found in times) for form in common}
    best = next(iter(common), FORMS[0])
    for form in common[1:]:
        if total[form] < WORTH * total[best] - spare:
            best = form
    return best


def _described(layer: StoredLayer) -> tuple[object, ...]:
    """What makes one form another; codes that a session unpacks to bytes are bytes."""
    return (layer.kernel, *((weight.dtype, weight.row_bits) for weight in layer.weights))


def _measured(proto: onnx.ModelProto, inputs: Sequence[NDArray[np.generic]], names: set[str]) -> dict[str, float]:
    """Layer -> milliseconds, without the layers whose kernels are not what they should be; none if nothing runs."""
    graph = Graph(proto)
    if unmet(graph):
        return {}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "model.onnx")
        write(proto, file)
        try:
            expected, _ = expected_kernels(graph)
            missing = see_activations(find_kernels(file, expected), graph).missing
            found = by_layer(file, inputs, Setup(), names)
        except (FileError, InputsError):
            return {}
    lost = {node.rpartition("/")[0] for node in missing}
    return {name: milliseconds for name, milliseconds in found.items() if name not in lost}


def _sharing(converted: nn.Module) -> dict[str, dict[str, QuantLayer]]:
    """Layer -> all that share a weight with it, itself among them."""
    readers: dict[object, list[str]] = defaultdict(list)
    layers = dict(quantized_layers(converted))
    for name, layer in layers.items():
        for _, _, quantizer in layer.quantized_weights():
            readers[quantizer].append(name)
    return {
        name: {other: layers[other] for _, _, q in layer.quantized_weights() for other in readers[q]}
        for name, layer in layers.items()
    }
