"""Tables of codes: only the rows that are looked up become numbers, and they are the same numbers."""

import functools
import io
import itertools

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from export import audit, check, export_onnx
from export.read.draw.picture import graph_svg
from export.read.graph import Graph
from export.read.latency import as_float
from export.read.lookup import codes_in_bytes
from export.read.proof import prove
from export.read.runtime import run, session
from qat_core import QATConfig, QuantSpec, calibrate, convert, prepare

ROWS = 20
SPECS = {
    "W8 per row": QuantSpec(bits=8),
    "W8 per tensor, unsigned": QuantSpec(bits=8, granularity="per_tensor", symmetric=False),
    "W4 per row": QuantSpec(bits=4),
    "W4 per group, unsigned": QuantSpec(bits=4, granularity="per_group", group_size=4, symmetric=False),
    "W4 in groups that fill no bytes": QuantSpec(bits=4, granularity="per_group", group_size=3),
    "W3 half-shifted": QuantSpec(bits=3, half_shift=True),
    "W2 per group": QuantSpec(bits=2, granularity="per_group", group_size=4),
    "ternary per tensor": QuantSpec(bits=1.58, granularity="per_tensor"),
}


def exported(spec, path, columns=7, **options):
    model, indices, report, written = once(spec, columns, **options)
    path.write_bytes(written)
    return model, indices, report, Graph.open(path)


@functools.cache
def once(spec, columns, **options):
    torch.manual_seed(0)
    model = prepare(nn.Sequential(nn.Embedding(ROWS, columns)), QATConfig(spec)).eval()
    indices, file = torch.randint(ROWS, (2, 3)), io.BytesIO()
    report = export_onnx(model, indices, file, **options)
    return model, indices, report, file.getvalue()


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("columns", [7, 8])
def test_rows_are_those_of_the_forward_pass_bit_for_bit(name, columns, tmp_path):
    model, _indices, report, graph = exported(SPECS[name], tmp_path / "m.onnx", columns)
    assert report.outcome == "exact"
    (lookup,) = graph.lookups.values()
    table = convert(model)[0].weight.detach().numpy()
    assert np.array_equal(lookup.tensor.as_weight(lookup.tensor.values), table)
    everything = np.arange(ROWS).reshape(4, 5)
    for level in ("disable_all", "all"):
        (y,) = run(session(graph.model, level), [everything])
        assert np.array_equal(y, table[everything])
    assert check(tmp_path / "m.onnx").outcome == "exact"


@pytest.mark.parametrize("name", SPECS)
def test_nothing_unpacks_the_whole_table(name, tmp_path):
    _, _, _, graph = exported(SPECS[name], tmp_path / "m.onnx")
    (lookup,) = graph.lookups.values()
    assert [node.op_type for node in graph.readers[lookup.tensor.name]] == ["Gather"]
    assert "DequantizeLinear" not in {node.op_type for node in graph.nodes}
    assert not {node.domain for node in graph.nodes} - {""}  # standard operators
    assert not audit(tmp_path / "m.onnx").float_matrices


@pytest.mark.parametrize("bits", [2, 4])
def test_narrow_codes_lie_in_bytes_as_onnx_packs_them(bits, tmp_path):
    model, _, _, graph = exported(QuantSpec(bits=bits), tmp_path / "m.onnx", columns=8)
    (lookup,) = graph.lookups.values()
    codes = model[0].weight_quantizer.codes(model[0].weight).numpy()
    packed = onnx.helper.make_tensor("codes", getattr(onnx.TensorProto, f"INT{bits}"), codes.shape, codes.ravel())
    assert lookup.tensor.data == np.asarray(packed.int32_data, np.uint8).tobytes()
    assert np.array_equal(lookup.tensor.codes.reshape(codes.shape), codes)
    assert lookup.tensor.dtype == f"INT{bits}"
    row = next(row for row in audit(tmp_path / "m.onnx").rows if row.name == "0.weight")
    assert row.role == "codes"
    assert row.bytes == ROWS * 8 * bits // 8


def test_a_byte_has_its_lowest_bits_first():
    assert codes_in_bytes(4, signed=True)[0x7F].tolist() == [-1, 7]
    assert codes_in_bytes(4, signed=False)[0x7F].tolist() == [15, 7]
    assert codes_in_bytes(2, signed=True)[0b11_10_01_00].tolist() == [0, 1, -2, -1]


def test_an_export_in_bytes_keeps_a_byte_for_each_code(tmp_path):
    _, _, _, graph = exported(QuantSpec(bits=4), tmp_path / "m.onnx", storage="int8")
    (lookup,) = graph.lookups.values()
    assert lookup.tensor.dtype == "INT8"
    assert lookup.tensor.tensor.data_type == onnx.TensorProto.INT8


class Positions(nn.Module):
    """Rows that are the same in every call."""

    def __init__(self):
        super().__init__()
        self.words, self.places, self.head = nn.Embedding(ROWS, 6), nn.Embedding(5, 6), nn.Linear(6, 3)

    def forward(self, words):
        return self.head(self.words(words) + self.places(torch.arange(3)))


def test_rows_that_are_always_the_same_stay_codes(tmp_path):
    model = prepare(Positions(), QATConfig(QuantSpec(bits=4))).eval()
    export_onnx(model, torch.randint(ROWS, (2, 3)), tmp_path / "m.onnx")
    graph = Graph.open(tmp_path / "m.onnx")
    assert {lookup.tensor.name for lookup in graph.lookups.values()} == {"words.weight", "places.weight"}


def test_the_float_twin_looks_up_float_rows(tmp_path):
    model = prepare(Positions(), QATConfig(QuantSpec(bits=4))).eval()
    words = torch.randint(ROWS, (2, 3))
    export_onnx(model, words, tmp_path / "m.onnx")
    graph = Graph.open(tmp_path / "m.onnx")
    twin = as_float(graph)
    (y,), (expected,) = run(session(twin), [words.numpy()]), run(session(graph.model), [words.numpy()])
    np.testing.assert_allclose(y, expected, rtol=1e-6, atol=1e-6)
    gathers = [node for node in twin.graph.node if node.op_type == "Gather"]
    assert {"words.weight/float", "places.weight/float"} <= {name for node in gathers for name in node.input[:1]}


PARTS = {
    "rows": (slice(0, 4), slice(None)),
    "columns": (slice(None), slice(0, 5)),
    "last": (slice(-3, None), slice(2, 6)),
}


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("bits", [4, 8])
def test_a_part_of_a_table_that_the_model_takes_is_its_own(tmp_path, bits, part):
    class Part(nn.Module):
        def __init__(self):
            super().__init__()
            self.words = nn.Embedding(ROWS, 6)

        def forward(self, words):
            return self.words(words), self.words.weight[PARTS[part]]

    model = prepare(Part(), QATConfig(QuantSpec(bits=bits))).eval()
    words = torch.randint(ROWS, (2, 3))
    assert export_onnx(model, words, tmp_path / "m.onnx").ok
    graph = Graph.open(tmp_path / "m.onnx")
    assert {lookup.tensor.shape for lookup in graph.lookups.values()} == {(ROWS, 6)}
    found = run(session(as_float(graph)), [words.numpy()])
    for y, expected in zip(found, run(session(graph.model), [words.numpy()]), strict=True):
        np.testing.assert_allclose(y, expected, rtol=1e-6, atol=1e-6)


def test_a_proof_goes_through_a_lookup(tmp_path):
    spec = QuantSpec(bits=4, power_of_two=True)
    config = QATConfig(spec, QuantSpec.activation(power_of_two=True))
    words = torch.randint(ROWS, (2, 3))
    model = calibrate(prepare(nn.Sequential(nn.Embedding(ROWS, 6), nn.Linear(6, 3)), config), [words]).eval()
    export_onnx(model, words, tmp_path / "m.onnx")
    assert prove(Graph.open(tmp_path / "m.onnx")).proven


def test_the_picture_shows_codes_up_to_where_they_become_numbers(tmp_path):
    _, _, _, graph = exported(QuantSpec(bits=4), tmp_path / "m.onnx")
    picture = graph_svg(graph, "m.onnx")
    assert "0.weight" in picture
    assert 'class="integer"' in picture


MODES = list(itertools.product(("sum", "mean", "max"), (None, torch.tensor([0, 2, 5]))))


class Bags(nn.Module):
    def __init__(self, mode, offsets):
        super().__init__()
        self.bags, self.offsets = nn.EmbeddingBag(ROWS, 6, mode=mode), offsets

    def forward(self, words):
        return self.bags(words, self.offsets)


@pytest.mark.parametrize(("mode", "offsets"), MODES)
def test_bags_look_their_rows_up(mode, offsets, tmp_path):
    torch.manual_seed(0)
    model = prepare(Bags(mode, offsets), QATConfig(QuantSpec(bits=4))).eval()
    words = torch.randint(ROWS, (7,) if offsets is not None else (2, 3))
    export_onnx(model, words, tmp_path / "m.onnx", dynamic_batch=offsets is None)
    assert len(Graph.open(tmp_path / "m.onnx").lookups) == 1


def test_bags_that_leave_words_out_unpack_their_table(tmp_path):
    model = prepare(nn.Sequential(nn.EmbeddingBag(ROWS, 6, padding_idx=0, mode="sum")), QATConfig(QuantSpec(bits=4)))
    export_onnx(model.eval(), torch.randint(ROWS, (2, 3)), tmp_path / "m.onnx", dynamic_batch=False)
    assert not Graph.open(tmp_path / "m.onnx").lookups


def test_a_lookup_of_bytes_that_nobody_multiplies_is_none(tmp_path):
    class Bytes(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(4, 2)
            self.register_buffer("table", torch.randint(-9, 9, (ROWS, 4), dtype=torch.int8))

        def forward(self, words):
            return self.head(self.table[words].float())

    export_onnx(prepare(Bytes()).eval(), torch.randint(ROWS, (3,)), tmp_path / "m.onnx")
    graph = Graph.open(tmp_path / "m.onnx")
    assert not graph.lookups
    assert "table" not in graph.packed
