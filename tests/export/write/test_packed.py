"""storage="packed": files as small as their codes are narrow, which integer kernels run."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto
from torch import nn

from export import audit, check, export_onnx
from export.read.draw.picture import graph_svg
from export.read.graph import Graph
from export.read.latency import as_float
from export.read.proof import prove
from export.read.requires import requirements
from export.read.runtime import optimized, run, session
from qat_core import QATConfig, QuantSpec, calibrate, convert, prepare

A8 = QuantSpec.activation()
NETWORKS = {
    "linear": (nn.Sequential(nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 8)), (6, 16)),
    "convolution": (nn.Sequential(nn.Conv2d(4, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 4)), (2, 4, 8, 8)),
}
SPECS = {
    "W4": QuantSpec(bits=4),
    "W4, unsigned": QuantSpec(bits=4, symmetric=False),
    "W3 per tensor": QuantSpec(bits=3, granularity="per_tensor"),
    "W2": QuantSpec(bits=2),
    "ternary": QuantSpec(bits=1.58),
}


def exported(network, config, path, storage="packed"):
    torch.manual_seed(0)
    layers, shape = NETWORKS[network]
    x = torch.randn(shape)
    model = calibrate(prepare(layers, config), [x]).eval()
    return model, x, export_onnx(model, x, path, storage=storage)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_narrow_codes_meet_the_kernels_of_wide_ones(network, spec, tmp_path):
    config = QATConfig(spec, A8)
    _, x, report = exported(network, config, tmp_path / "packed.onnx")
    _, _, wide = exported(network, config, tmp_path / "wide.onnx", "int8")
    assert report.kernels.expected == wide.kernels.expected != {}
    assert not report.kernels.missing
    assert not {"Cast", "Gather"} & {node.op_type for node in optimized(tmp_path / "packed.onnx").graph.node}
    files = [session(tmp_path / name) for name in ("packed.onnx", "wide.onnx")]
    (packed,), (wide,) = (run(file, [x.numpy()]) for file in files)
    assert np.array_equal(packed, wide)
    assert check(tmp_path / "packed.onnx").holds


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_what_is_packed_is_the_weight_bit_for_bit(spec, tmp_path):
    model, _, _ = exported("linear", QATConfig(spec, A8), tmp_path / "m.onnx")
    graph, weight = Graph.open(tmp_path / "m.onnx"), convert(model)[0].weight.detach().numpy()
    stored = graph.packed["0.weight"]
    assert np.array_equal(stored.as_weight(stored.values), weight)
    assert stored.bits == spec.storage_bits
    row = next(row for row in audit(tmp_path / "m.onnx").rows if row.name == "0.weight")
    assert (row.role, row.dtype, row.bytes) == ("codes", "UINT8", weight.size * spec.storage_bits // 8)
    assert not audit(tmp_path / "m.onnx").float_matrices
    assert {value.op_type for value in graph.readers["0.weight"]} == {"Cast"}


def test_standard_operators_of_the_first_opset_do(tmp_path):
    exported("linear", QATConfig(QuantSpec(bits=2), A8), tmp_path / "m.onnx")
    model = onnx.load(tmp_path / "m.onnx")
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 21)]
    needs = {requirement.of: requirement.value for requirement in requirements(Graph(model))}
    assert "processor" not in needs


def test_codes_that_fill_no_bytes_have_a_byte_each(tmp_path):
    torch.manual_seed(0)
    x = torch.randn(4, 5)
    model = calibrate(prepare(nn.Linear(5, 3), QATConfig(QuantSpec(bits=4), A8)), [x]).eval()
    report = export_onnx(model, x, tmp_path / "m.onnx", storage="packed")
    assert report.ok
    stored = Graph.open(tmp_path / "m.onnx").packed["weight"]
    assert stored.tensor.data_type == TensorProto.INT4  # as without: there is nothing to win


@pytest.mark.parametrize("weight", [QuantSpec(granularity="per_group", group_size=8), QuantSpec(half_shift=True)])
def test_what_no_integer_kernel_takes_stays_as_it_is(weight, tmp_path):
    exported("linear", QATConfig(weight, A8), tmp_path / "packed.onnx")
    exported("linear", QATConfig(weight, A8), tmp_path / "narrow.onnx", None)
    packed, narrow = (onnx.load(tmp_path / f"{name}.onnx").graph for name in ("packed", "narrow"))
    assert packed == narrow


def test_the_float_twin_and_the_proof_see_through_the_bytes(tmp_path):
    powers = QATConfig(QuantSpec(power_of_two=True), QuantSpec.activation(power_of_two=True))
    _, x, report = exported("linear", powers, tmp_path / "m.onnx")
    graph = Graph.open(tmp_path / "m.onnx")
    assert report.outcome == "exact"
    assert prove(graph).proven
    (y,), (twin,) = run(session(graph.model), [x.numpy()]), run(session(as_float(graph)), [x.numpy()])
    assert np.abs(y - twin).max() < 0.05 * np.abs(twin).max()  # as far as rounded activations are from others


def test_the_picture_shows_codes_all_the_way_to_where_they_become_numbers(tmp_path):
    exported("linear", QATConfig(QuantSpec(), A8), tmp_path / "packed.onnx")
    exported("linear", QATConfig(QuantSpec(), A8), tmp_path / "narrow.onnx", None)
    packed, narrow = (graph_svg(Graph.open(tmp_path / f"{name}.onnx"), "") for name in ("packed", "narrow"))
    between = 3 * 2  # Cast, Gather, Reshape for each of two weights
    assert packed.count('class="integer"') > narrow.count('class="integer"')
    assert packed.count('class="number"') == narrow.count('class="number"')
    assert packed.count('class="op"') == narrow.count('class="op"') + between
