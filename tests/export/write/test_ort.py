"""The quick flavour: MatMulNBits computes what the network was trained for, and says where it cannot help."""

import json

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from export import ParityError, audit, check, check_parity, export_onnx
from export.read.distance import output_range
from export.read.graph import Graph
from export.write.matmul_nbits import pack_rows, pack_weight
from export.write.parity import assert_same_values
from export.write.storage import stored_layers
from qat_core import QATConfig, QuantSpec, convert, prepare
from qat_core.affine import dynamic_qparams
from tests.export.models import Tied, prepared, tensors


def groups(size=32, **changes):
    """Dynamic 8-bit activations with a scale for each group."""
    return QuantSpec(bits=8, dynamic=True, granularity="per_group", group_size=size, **changes)


def network(inputs=96):
    torch.manual_seed(0)
    layers = nn.Linear(inputs, 70), nn.ReLU(), nn.Linear(70, 33, bias=False), nn.ReLU(), nn.Linear(33, 3)
    return nn.Sequential(*layers)


def kernels_of(path):
    """Layer -> bits, block_size, accuracy_level of every MatMulNBits node."""
    nodes = [node for node in onnx.load(path).graph.node if node.op_type == "MatMulNBits"]
    found = {node.name: {a.name: a.i for a in node.attribute} for node in nodes}
    return {n.removesuffix("/MatMulNBits"): (a["bits"], a["block_size"], a["accuracy_level"]) for n, a in found.items()}


@given(st.sampled_from([2, 4, 8]), st.sampled_from([16, 32, 64]), st.integers(1, 5), st.integers(1, 70), st.data())
def test_codes_are_packed_with_the_lowest_bits_first(bits, block_size, rows, columns, data):
    codes = data.draw(st.lists(st.integers(0, 2**bits - 1), min_size=rows * columns, max_size=rows * columns))
    codes = torch.tensor(codes).reshape(rows, columns)
    packed = pack_weight(codes, bits, block_size)
    assert packed.shape == (rows, -(-columns // block_size), block_size * bits // 8)
    assert pack_rows(codes, bits).shape == (rows, -(-columns * bits // 8))
    as_one_number = [sum(int(code) << (bits * i) for i, code in enumerate(row)) for row in codes]
    assert [int.from_bytes(row.numpy().tobytes(), "little") for row in packed] == as_one_number
    assert [int.from_bytes(row.numpy().tobytes(), "little") for row in pack_rows(codes, bits)] == as_one_number


WEIGHTS = [
    *(QuantSpec(bits, granularity) for bits in (1.58, 2, 3, 4) for granularity in ("per_tensor", "per_channel")),
    *(QuantSpec(bits, symmetric=False) for bits in (2, 3, 4)),
    QuantSpec(4, "per_group", group_size=16),
    QuantSpec(4, "per_group", group_size=48, symmetric=False),
    QuantSpec(2, "per_group", group_size=32, half_shift=True),
    QuantSpec(3, half_shift=True),
    QuantSpec(2, scale="learned"),
]


@pytest.mark.parametrize("spec", WEIGHTS, ids=str)
def test_quantized_weights_and_float_activations(tmp_path, spec):
    """Level 1: what the kernel makes of the weights is what the forward pass sees, column by column."""
    model, path = prepare(network(), QATConfig(spec)), tmp_path / "model.onnx"
    report = export_onnx(model, torch.randn(4, 96), path, flavor="ort")
    assert report.kernels.expected == {f"{layer}/MatMulNBits": "MatMulNBits" for layer in (0, 2, 4)}
    assert {(bits, level) for bits, _, level in kernels_of(path).values()} == {(4, 1)}
    report = check_parity(model, path, torch.randn(33, 96))
    assert report.ok
    assert max(level.max_abs_diff for level in report.levels) <= 2e-6 * output_range(
        model(torch.randn(33, 96)).detach().double().numpy()
    )
    weight = convert(model)[0].weight.numpy()
    (node,) = (n for n in onnx.load(path).graph.node if n.name == "0/MatMulNBits")
    identity = torch.eye(96)
    columns = tensors(path, [node.output[0]], (identity,))[0] - model[0].bias.detach().numpy()
    bias_rounding = np.spacing(np.abs(model[0].bias.detach().numpy()) + np.abs(weight).max())
    assert (np.abs(columns - weight.T) <= bias_rounding).all()


DYNAMIC = [
    (QuantSpec(4), groups(32), (4, 32, 4)),
    (QuantSpec(4, "per_group", group_size=32), groups(32), (4, 32, 4)),
    (QuantSpec(4, "per_group", group_size=64, symmetric=False), groups(16), (4, 16, 4)),
    (QuantSpec(2, symmetric=False), groups(64), (2, 64, 4)),
    (QuantSpec(2, half_shift=True), groups(32), (4, 32, 4)),
    (QuantSpec(1.58, "per_tensor"), groups(16), (4, 16, 4)),
    (QuantSpec(3), groups(32), (4, 32, 4)),
    (QuantSpec(8), groups(32), (8, 32, 4)),
    (QuantSpec(8, symmetric=False), groups(64), (8, 64, 4)),
    (QuantSpec(4, half_shift=True), groups(32), (8, 32, 4)),
    (QuantSpec(4), QuantSpec(bits=8, dynamic=True), (4, 128, 4)),
]


@pytest.mark.parametrize(("weight", "activation", "kernel"), DYNAMIC, ids=str)
def test_dynamic_activations_answer_as_the_quick_kernel_rounds(tmp_path, weight, activation, kernel):
    """Level 4, one layer, so that no rounding tie can follow from an earlier sum."""
    torch.manual_seed(0)
    model, path = prepare(nn.Sequential(nn.Linear(96, 50)), QATConfig(weight, activation)), tmp_path / "model.onnx"
    export_onnx(model, torch.randn(4, 96), path, flavor="ort")
    assert kernels_of(path) == {"0": kernel}
    x = torch.randn(257, 96) * torch.logspace(-3, 3, 257).unsqueeze(1)
    report = check_parity(model, path, x)
    assert report.outcome != "broken"
    expected = model(x).detach().numpy()
    for row, answer in zip(expected, ort.InferenceSession(path).run(None, {"input": x.numpy()})[0], strict=True):
        assert np.abs(row - answer).max() <= 1e-6 * output_range(row.astype(np.float64))


def as_the_kernel_computes(x, codes, scale, block_size):
    """Level 4 from its definition, in numpy: exact whole numbers in a block, then one scale."""
    answer = np.zeros((len(x), len(codes)))
    for block, start in enumerate(range(0, x.shape[1], block_size)):
        here = slice(start, start + block_size)
        largest = np.abs(x[:, here]).max(1, keepdims=True)
        factor = np.divide(np.float32(127), largest, out=np.zeros_like(largest), where=largest > 0)
        products = np.rint(x[:, here] * factor).astype(np.int64) @ codes[:, here].T.astype(np.int64)
        answer += products * (largest / np.float32(127)).astype(np.float64) * scale[:, block].astype(np.float64)
    return answer


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.sampled_from([4, 8]), st.sampled_from([16, 32, 128]), st.integers(1, 200))
def test_the_quick_kernel_rounds_as_dynamic_qparams_says(seed, bits, block_size, columns):
    """An oracle without our code: the kernel on random codes, with the largest that the type has among them."""
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal((3, columns)) * np.exp(3 * rng.standard_normal((3, columns)))).astype(np.float32)
    x[0] = np.abs(x[0]).max()  # all codes at 127: the largest sums there are
    codes = rng.integers(0, 2**bits, (5, columns))
    codes[0], codes[1] = 0, 2**bits - 1
    scale = rng.uniform(0.5, 2, (5, -(-columns // block_size))).astype(np.float32)
    packed = numpy_helper.from_array(pack_weight(torch.from_numpy(codes), bits, block_size).numpy(), "codes")
    sizes = {"K": columns, "N": 5, "bits": bits, "block_size": block_size, "accuracy_level": 4}
    node = helper.make_node("MatMulNBits", ["x", "codes", "scale"], ["y"], domain="com.microsoft", **sizes)
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", x.shape), ("y", [3, 5]))]
    graph = helper.make_graph([node], "g", values[:1], values[1:], [packed, numpy_helper.from_array(scale, "scale")])
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    session = ort.InferenceSession(model.SerializeToString())
    ((_, stored),) = Graph(model).code_arrays()
    np.testing.assert_array_equal(stored, codes - 2 ** (bits - 1))
    expected = as_the_kernel_computes(x, stored, scale, block_size)
    np.testing.assert_allclose(session.run(None, {"x": x})[0], expected, rtol=0, atol=1e-6 * np.abs(expected).max())
    spec = groups(block_size)
    padded = np.pad(x, ((0, 0), (0, -columns % block_size))).reshape(3, -1, block_size)
    _, factor = dynamic_qparams(torch.from_numpy(padded), spec)
    largest = np.abs(padded).max(-1, keepdims=True)
    np.testing.assert_array_equal(factor.numpy()[largest > 0], (np.float32(127) / largest[largest > 0]))


def test_a_network_trained_for_the_quick_kernel_answers_as_in_pytorch(tmp_path):
    torch.manual_seed(0)
    model = prepare(network(), QATConfig(activation=groups()))
    path = tmp_path / "model.onnx"
    export_onnx(model, torch.randn(64, 96), path, flavor="ort")
    assert kernels_of(path) == dict.fromkeys(("0", "2", "4"), (4, 32, 4))
    report = check_parity(model, path, torch.randn(129, 96))
    report.raise_if_broken()
    assert {level.level for level in report.levels} == {"disable_all", "basic", "extended", "all"}


def test_a_network_that_was_not_is_seen_to_differ_at_level_4(tmp_path):
    """What accuracy level 4 does to float activations, and that parity notices it."""
    torch.manual_seed(0)
    model, path = prepare(network()), tmp_path / "model.onnx"
    export_onnx(model, torch.randn(4, 96), path, flavor="ort")
    proto = onnx.load(path)
    for node in proto.graph.node:
        for attribute in node.attribute:
            attribute.i = 4 if attribute.name == "accuracy_level" else attribute.i
    onnx.save(proto, path)
    assert check_parity(model, path, torch.randn(16, 96)).outcome == "broken"


def test_the_codes_are_compared_with_those_of_the_forward_pass(tmp_path):
    model, path = prepare(network(), QATConfig(QuantSpec(2, half_shift=True))), tmp_path / "model.onnx"
    export_onnx(model, torch.randn(4, 96), path, flavor="ort")
    layers, proto = stored_layers(convert(model), "ort"), onnx.load(path)
    assert_same_values(Graph(proto), layers)
    (tensor,) = (t for t in proto.graph.initializer if t.name == "2.weight")
    codes = numpy_helper.to_array(tensor).copy()
    codes[3, 0, 5] ^= 1
    tensor.CopyFrom(numpy_helper.from_array(codes, tensor.name))
    with pytest.raises(ParityError, match=r"codes '2.weight' of layer '2'"):
        assert_same_values(Graph(proto), layers)


def test_sequences_and_layers_that_stay_as_they_are(tmp_path):
    torch.manual_seed(0)
    layer, path = nn.TransformerEncoderLayer(32, 2, 48, batch_first=True), tmp_path / "model.onnx"
    model = prepare(layer, QATConfig(QuantSpec(4))).eval()
    report = export_onnx(model, torch.randn(3, 5, 32), path, flavor="ort")
    assert set(kernels_of(path)) == {"self_attn.out_proj", "linear1", "linear2"}
    assert report.kernels.slow["self_attn"] == "MultiheadAttention is not a Linear"
    check_parity(model, path, torch.randn(2, 9, 32)).raise_if_broken()
    (entry,) = (p for p in onnx.load(path).metadata_props if p.key == "qat_receipt")
    told = json.loads(entry.value)["settings"]
    assert told["flavor"] == "ort"
    quick = {"kernel": "MatMulNBits", "bits": 4, "block_size": 32, "accuracy_level": 1}
    assert told["kernels"]["linear1"] == quick
    assert told["kernels"]["self_attn"] == {"kernel": "QDQ", "reason": "MultiheadAttention is not a Linear"}


STATIC = QuantSpec.activation()
FLOAT = "float activations have a quick kernel for 4-bit codes only"


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (QATConfig(QuantSpec(8)), FLOAT),
        (QATConfig(QuantSpec(4, half_shift=True)), FLOAT),
        (QATConfig(QuantSpec(8, half_shift=True), groups()), "half-shifted codes of 8 bits do not fit"),
        (QATConfig(QuantSpec(4), STATIC), "one static scale: integer kernels with storage='packed' are quicker"),
        (QATConfig(QuantSpec(4), groups(power_of_two=True)), "not to powers of two"),
        (
            QATConfig(QuantSpec(4, "per_group", group_size=24)),
            "no block of 16, 32, 64, 128, 256 inputs fits its group",
        ),
        (QATConfig(QuantSpec(4), groups(24)), "inputs fits its groups of 24"),
        (QATConfig(QuantSpec(4, "per_group", group_size=32), groups(64)), "fits its groups of 32 and groups of 64"),
    ],
)
def test_a_layer_without_a_quick_kernel_says_why_and_a_model_without_any_is_refused(tmp_path, config, reason):
    x = torch.randn(4, 96)
    refused = prepared(network(), config, x)
    with pytest.raises(ValueError, match=rf"flavor='ort' has a quick kernel for no layer .* 0: .*{reason}"):
        export_onnx(refused, x, tmp_path / "model.onnx", flavor="ort")
    assert list(tmp_path.iterdir()) == []
    mixed = QATConfig(overrides={"0": config})
    model = prepared(network(), mixed, x)
    report = export_onnx(model, x, tmp_path / "model.onnx", flavor="ort")
    assert set(kernels_of(tmp_path / "model.onnx")) == {"2", "4"}
    assert reason in report.kernels.slow["0"]
    assert check_parity(model, tmp_path / "model.onnx", torch.randn(9, 96)).ok


def test_a_model_without_a_linear_is_refused(tmp_path):
    model = prepare(nn.Sequential(nn.Conv1d(2, 3, 1)))
    with pytest.raises(ValueError, match="expected a Linear: 0: Conv1d is not a Linear"):
        export_onnx(model, torch.randn(2, 2, 3), tmp_path / "model.onnx", flavor="ort")


def test_a_weight_that_an_embedding_reads_as_well_stays_as_it_is(tmp_path):
    model = prepare(Tied())
    with pytest.raises(ValueError, match="head: its weight is shared by words, head, which cannot all read the same"):
        export_onnx(model, torch.randint(0, 10, (5, 7)), tmp_path / "model.onnx", flavor="ort")


def test_a_weight_that_two_linears_read_is_stored_once(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 32))
    model[2].weight = model[0].weight
    model, path = prepare(model), tmp_path / "model.onnx"
    export_onnx(model, torch.randn(4, 32), path, flavor="ort")
    assert set(kernels_of(path)) == {"0", "2"}
    assert [row.name for row in audit(path).rows if row.role == "codes"] == ["0.weight"]


def test_the_audit_sees_through_the_packing_and_the_receipt_holds(tmp_path):
    path = tmp_path / "model.onnx"
    model = prepare(network(), QATConfig(QuantSpec(2, symmetric=False), groups(64)))
    export_onnx(model, torch.randn(16, 96), path, flavor="ort")
    found = audit(path)
    rows = {row.name: (row.elements, row.bytes) for row in found.rows if row.role == "codes"}
    assert rows == {"0.weight": (70 * 96, 70 * 32), "2.weight": (33 * 70, 33 * 32), "4.weight": (3 * 33, 3 * 16)}
    assert found.float_matrices == []
    report = check(path)
    assert report.ok
    assert report.kernels.expected == {f"{layer}/MatMulNBits": "MatMulNBits" for layer in (0, 2, 4)}
