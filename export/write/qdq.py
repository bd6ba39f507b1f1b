"""A converted model as an ONNX graph: QuantizeLinear, DequantizeLinear and integer initializers, standard operators.

torch.export traces the model with stand-ins in place of its quantizers; what is left to do here is to give every tensor
of codes the type and the name that `storage.py` says, and every activation the type that fits where it stands.
"""

import ast
import re
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnx_ir as ir
import onnx_ir.passes.common as passes
import onnxscript.optimizer
from torch import Tensor, nn

from export.read.distance import ParityError
from export.read.graph import LIMITS, MOVES
from export.write.axes import Declared, name_symbols
from export.write.stand_ins import with_stand_ins
from export.write.storage import IN_FLOAT, middle_code
from export.write.stored import StoredLayer, StoredTensor
from export.write.tensors import free_copies
from export.write.tracing import quiet, trace

IR_VERSIONS = {21: 10, 22: 10, 23: 11, 24: 12, 25: 13}
SMALLEST_CLIPPED_SCALE = 2.0**-22  # half a step is then onnxruntime's tolerance, 2^-23
BYTES = {ir.DataType.INT8, ir.DataType.UINT8}
ONE_BYTE = BYTES | {ir.DataType.BOOL}
CODES = ("codes", "bytes")  # roles of what holds codes
ABBREVIATIONS = {"QuantizeLinear": "Q", "DequantizeLinear": "DQ"}

Buffers = Mapping[str, tuple[StoredTensor, str]]  # as traced -> what it is of, and its role there


def to_qdq(
    converted: nn.Module,
    layers: Sequence[StoredLayer],
    inputs: Sequence[Tensor],
    input_names: Sequence[str],
    output_names: Sequence[str],
    *,
    opset_version: int,
    shapes: Declared | None = None,
) -> onnx.ModelProto:
    """The ONNX graph of a converted model.

    Args:
        converted: what `convert` returns, on the CPU; it is left as it is.
        layers: how the file holds each of its layers.
        inputs: example inputs.
        input_names, output_names: of the tensors that the model takes and answers.
        opset_version: 21 to 25, one that has the types of `layers`.
        shapes: which axes of the inputs may vary; None is none.

    Raises:
        ValueError: torch cannot trace the model, or what it takes and answers cannot be told apart.
    """
    exporting, buffers = with_stand_ins(converted, layers)
    model = trace(exporting, inputs, opset_version=opset_version, shapes=shapes)
    del exporting
    free_copies(converted)
    for name, value in model.graph.initializers.items():
        stored, role = buffers.get(name, (None, ""))
        if stored is not None and role in ("codes", "zero_point"):
            _retype(value, stored.dtype)
    passes.RemoveUnusedNodesPass()(model)
    needed = {buffers[name][0].name for name in model.graph.initializers if buffers.get(name, (None, ""))[1] in CODES}
    with quiet():
        _simplify(model, buffers)
    _store_activations(model, buffers)
    _name(model, buffers, input_names, output_names, opset_version)
    _unpack_first(model.graph)
    if lost := needed - model.graph.initializers.keys():
        raise ParityError(f"the codes {min(lost)!r} of the forward pass are not in the file")
    model.ir_version = IR_VERSIONS[opset_version]
    proto = ir.to_proto(model)
    proto.graph.ClearField("value_info")  # types and shapes in between, which whoever reads the file infers
    name_symbols(proto)
    return proto


def _retype(value: ir.Value, dtype: ir.DataType, number: float | None = None) -> None:
    """Narrow codes or a zero point that were traced as int8 or uint8, or make it that number."""
    assert value.const_value is not None
    if value.const_value.dtype != dtype:
        codes = value.const_value.numpy() if number is None else np.asarray(number)
        value.const_value = ir.Tensor(codes.astype(dtype.numpy()), dtype=dtype, name=value.name)
        value.dtype = dtype


def _store_activations(model: ir.Model, buffers: Buffers) -> None:
    """Give each QuantizeLinear, traced with 8 bits, the type and the limits of its spec.

    Four bits are UINT4 where onnxruntime gets it right, which it may not in five cases, and one is enough to
    keep all of them 8 bits wide, with limits that see to the spec's codes:

    1. one is of eight bits, or something else in the graph lies in bytes: onnxruntime 1.22 to 1.30 puts that into the
       memory of four-bit codes that nobody reads any more, which is half as large;
    2. behind a Relu: it is dropped in front of a 4-bit QuantizeLinear, which only a zero point at the smallest code
       makes up for;
    3. behind a Clip, or 4. a MaxPool: the file cannot be loaded;
    5. weights of eight bits: fused with an input of four into a QLinearConv that is then refused.

    The limits are a Clip. onnxruntime drops one whose limits are within 2^-23 of those of the 8-bit codes, whatever the
    scale: where this is more than half a step, the limits are Max and Min, and stand between QuantizeLinear and the
    model's own Relu or Clip as well.
    """
    quantized = []
    for node in [node for node in model.graph.all_nodes() if node.op_type == "QuantizeLinear"]:
        x, scale, zero_point = filter(None, node.inputs)
        assert zero_point.name is not None
        spec = buffers[zero_point.name][0].spec
        origin = 0.0 if spec.symmetric else _number(zero_point)  # the spec's code of zero
        quantized.append((node, spec, zero_point, origin, _number(scale), _path(x)))
    stored = [
        value.dtype for name, value in model.graph.initializers.items() if buffers.get(name, ("", ""))[1] == "codes"
    ]
    between = [
        value.dtype for node in model.graph.all_nodes() if node.op_type != "QuantizeLinear" for value in node.outputs
    ]
    four = not BYTES.intersection(stored) and not ONE_BYTE.intersection(between)
    four &= all(
        spec.bits == 4
        and "MaxPool" not in path
        and path[-1] != "Clip"
        and (path[-1] != "Relu" or origin == spec.quant_min)
        for _, spec, _, origin, _, path in quantized
    )
    for node, spec, zero_point, origin, step, path in quantized:
        tiny = step < SMALLEST_CLIPPED_SCALE
        if four:
            _retype(zero_point, ir.DataType.UINT4, middle_code(4) if spec.symmetric else origin)
            node.outputs[0].type = zero_point.type
        elif spec.bits < 8 or (tiny and path[-1] in LIMITS):
            limits = [np.float32(code - origin) * np.float32(step) for code in (spec.quant_min, spec.quant_max)]
            _limit(model, node, limits, ("Max", "Min") if tiny else ("Clip",))


def _path(x: ir.Value) -> list[str]:
    """The operators from a value back to where its numbers come from, through those that only move or choose them."""
    path = []
    node = x.producer()
    while node is not None:
        path.append(node.op_type)
        if node.op_type not in MOVES or node.inputs[0] is None:
            break
        node = node.inputs[0].producer()
    return path or [""]


def _limit(model: ir.Model, node: ir.Node, limits: Sequence[np.float32], operators: Sequence[str]) -> None:
    """Keep a node's first input between two numbers: by a Clip, or by a Max and a Min."""
    bounds = []
    for end, limit in zip(("min", "max"), limits, strict=True):
        name = f"{node.outputs[0].name}_{end}"
        bound = ir.Value(name=name, const_value=ir.Tensor(np.asarray(limit), name=name))
        bound.dtype, bound.shape = ir.DataType.FLOAT, ir.Shape([])
        model.graph.register_initializer(bound)
        bounds.append(bound)
    for index, operator in enumerate(operators):
        x = node.inputs[0]
        assert x is not None
        limited = ir.node(operator, [x, *(bounds if operator == "Clip" else bounds[index : index + 1])])
        limited.metadata_props.update(node.metadata_props)
        limited.outputs[0].name = f"{node.outputs[0].name}_{operator.lower()}"
        limited.outputs[0].type, limited.outputs[0].shape = x.type, x.shape
        assert node.graph is not None
        node.graph.insert_before(node, limited)
        node.replace_input_with(0, limited.outputs[0])


def _number(value: ir.Value) -> float:
    assert value.const_value is not None
    return float(value.const_value.numpy())


def _simplify(model: ir.Model, buffers: Buffers) -> None:
    """Fold constants and drop what nobody reads; equal initializers stay apart, so each keeps its own name.

    Rows of a table that are always the same stay codes, and narrow codes stay in their bytes.
    """

    def should_fold(node: ir.Node) -> bool | None:
        codes = node.inputs[0] if node.op_type in ("Gather", "Cast") else None
        return False if codes is not None and codes.name in buffers else None

    passes.InlinePass()(model)
    onnxscript.optimizer.fold_constants(model, should_fold=should_fold)
    for simplify in (
        passes.RemoveUnusedNodesPass(),
        passes.RemoveUnusedFunctionsPass(),  # type: ignore[no-untyped-call]
        passes.RemoveUnusedOpsetsPass(),
        passes.CommonSubexpressionEliminationPass(),
        passes.IdentityEliminationPass(),
        passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        passes.LiftSubgraphInitializersToMainGraphPass(),
        passes.RemoveUnusedNodesPass(),
        passes.OutputFixPass(),
        passes.NameFixPass(),
    ):
        simplify(model)
    for graph in (model.graph, *model.graph.subgraphs()):
        _own_outputs(graph)


def _own_outputs(graph: ir.Graph) -> None:
    """No graph answers a constant, nor a branch or a loop's body a value from outside; an Identity makes it its own."""
    for index, value in enumerate(graph.outputs):
        producer = value.producer()
        if value not in graph.inputs and (producer is None or producer.graph is not graph):
            own = ir.node("Identity", [value])
            own.outputs[0].type, own.outputs[0].shape = value.type, value.shape
            own.outputs[0].name = f"{value.name}_of_{graph.name}"
            graph.append(own)
            graph.outputs[index] = own.outputs[0]


def _name(
    model: ir.Model, buffers: Buffers, input_names: Sequence[str], output_names: Sequence[str], opset_version: int
) -> None:
    """Nodes and initializers get the names of the modules they come from; what says nothing is dropped.

    Where something else than its layer reads a weight, the float one stands beside the codes under a name of its own.
    """
    initializers = list(model.graph.initializers.items())
    taken = {buffers[name][0].name_of(buffers[name][1]) for name, _ in initializers if name in buffers}
    for name, value in initializers:
        if name in taken and name not in buffers:
            value.name = name + IN_FLOAT
    for name, value in initializers:
        if name in buffers:
            stored, role = buffers[name]
            value.name = stored.name_of(role)
    seen = Counter([*input_names, *output_names])
    for node in model.graph.all_nodes():
        node.name = _node_name(node)
        seen[node.name] += 1
        if seen[node.name] > 1:
            node.name += f"_{seen[node.name]}"
        for index, value in enumerate(node.outputs):
            value.name = f"{node.name}.{index}" if index else node.name
        node.metadata_props.clear()
        node.doc_string = None
        _drop_defaults(node, opset_version)
    for values, names in ((model.graph.inputs, input_names), (model.graph.outputs, output_names)):
        for value, name in zip(values, names, strict=True):
            value.name = name
    for value in [*model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values()]:
        value.metadata_props.clear()
    model.graph.metadata_props.clear()
    model.metadata_props.clear()


def _unpack_first(graph: ir.Graph) -> None:
    """Operators that read initializers alone stand before all others.

    onnxruntime runs what an operator needs from the last in the file to the first: weights that stand behind the layer
    before theirs are unpacked before that layer runs, and those of a row of layers lie in memory in float at once.
    """
    constant, others = {*graph.initializers.values()}, []
    for node in graph:
        if node.inputs and constant.issuperset(filter(None, node.inputs)):
            constant.update(node.outputs)
        else:
            others.append(node)
    graph.remove(others)
    graph.extend(others)


def _node_name(node: ir.Node) -> str:
    """0/Gemm, and for what is done to a tensor and its codes 0.input/Q, 0.weight/DQ."""
    if node.op_type in ABBREVIATIONS:
        scale = node.inputs[1]
        assert scale is not None
        return f"{re.sub('_(scale|unit)$', '', scale.name or '')}/{ABBREVIATIONS[node.op_type]}"
    scope = _scope(node)
    return f"{scope}/{node.op_type}" if scope else node.op_type


def _drop_defaults(node: ir.Node, opset_version: int) -> None:
    """Remove the attributes that say what the standard's definition of the operator says already."""
    if node.domain:
        return
    defined = onnx.defs.get_schema(node.op_type, opset_version, node.domain).attributes
    for name, attribute in list(node.attributes.items()):
        default = defined[name].default_value
        if default.type and onnx.helper.get_attribute_value(default) == onnx.helper.get_attribute_value(
            ir.to_proto(attribute)
        ):
            del node.attributes[name]


def _scope(node: ir.Node) -> str:
    """The name of the layer that a node comes from."""
    scopes = ast.literal_eval(node.metadata_props.get("pkg.torch.onnx.name_scopes", "[]"))
    modules = [name for name in scopes[:-1] if not re.search(r"_quantizer(\.source)?$|^_empty_nn_module_stack", name)]
    return str(modules[-1]) if modules else ""
