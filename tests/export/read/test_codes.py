"""Codes read from their bytes are those that were written, and stand for the numbers that onnxruntime multiplies."""

import ml_dtypes
import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from app.lab.models import mlp
from export import export_onnx
from export.read.codes import INTEGER_BITS, code_range, unpack
from export.read.draw.nibbles import nibbles_svg, offset_of
from export.read.graph import Graph
from qat_core import QATConfig, QuantSpec, prepare
from tests.export.models import W4A8, prepared, tensors
from tests.export.write.test_layers import GRIDS, MORE_GRIDS
from tests.export.write.test_layers import mlp as many_grids

TYPES = {
    (2, True): ml_dtypes.int2,
    (2, False): ml_dtypes.uint2,
    (4, True): ml_dtypes.int4,
    (4, False): ml_dtypes.uint4,
    (8, True): np.int8,
    (8, False): np.uint8,
}


@given(st.data(), st.sampled_from(sorted(TYPES)), st.integers(1, 9))
def test_bytes_hold_the_codes_lowest_bits_first(data, kind, count):
    bits, signed = kind
    low = -(2 ** (bits - 1)) if signed else 0
    codes = data.draw(st.lists(st.integers(low, low + 2**bits - 1), min_size=count, max_size=count))
    tensor = numpy_helper.from_array(np.array(codes).astype(TYPES[kind]), "codes")
    assert unpack(tensor.raw_data, bits, signed)[:count].tolist() == codes


@pytest.mark.parametrize("data_type", INTEGER_BITS)
def test_the_range_of_a_type_is_that_of_numpy(data_type):
    info = ml_dtypes.iinfo(helper.tensor_dtype_to_np_dtype(data_type))
    assert code_range(data_type) == (info.min, info.max)


def test_words_are_little_endian():
    assert unpack(bytes([1, 0, 0xFE, 0xFF]), 16, signed=False).tolist() == [1, 65534]
    assert unpack(bytes([1, 0, 0, 0, 0xFE, 0xFF, 0xFF, 0xFF]), 32, signed=True).tolist() == [1, -2]


@pytest.mark.parametrize(("bits", "grids"), [(4, GRIDS), (2, MORE_GRIDS)])
def test_values_are_what_onnxruntime_multiplies_with(tmp_path, bits, grids):
    config = QATConfig(overrides={n: QATConfig(QuantSpec(bits=bits, **grid)) for n, grid in grids.items()})
    path, x = tmp_path / "model.onnx", torch.randn(5, 7)
    export_onnx(prepare(many_grids(), config), x, path)
    gemms = [node for node in onnx.load(path).graph.node if node.op_type == "Gemm"]
    found = Graph.open(path).packed
    for node, weight in zip(gemms, tensors(path, [node.input[1] for node in gemms], (x,)), strict=True):
        values = found[f"{node.name.partition('/')[0]}.weight"].values
        rows = values.reshape(weight.shape[0], -1)[:, : weight.shape[1]]  # a last group may be filled up
        np.testing.assert_array_equal(rows, weight)


@pytest.mark.parametrize("with_zero_point", [True, False])
def test_codes_that_hide_in_bytes_are_read_as_onnxruntime_reads_them(with_zero_point):
    columns, k, block = 3, 64, 16
    generator = np.random.default_rng(0)
    stored = {
        "b": generator.integers(0, 256, (columns, k // block, block // 2)).astype(np.uint8),
        "scales": generator.random(columns * k // block, dtype=np.float32),
    }
    if with_zero_point:
        stored["zero_points"] = generator.integers(0, 256, columns * k // block // 2).astype(np.uint8)
    node = helper.make_node(
        "MatMulNBits", ["a", *stored], ["y"], domain="com.microsoft", N=columns, K=k, bits=4, block_size=block
    )
    node.attribute.append(helper.make_attribute("accuracy_level", 1))
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("a", "y")]
    initializers = [numpy_helper.from_array(array, name) for name, array in stored.items()]
    graph = helper.make_graph([node], "g", values[:1], values[1:], initializers)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    (found,) = Graph(model).packed.values()
    (weight,) = ort.InferenceSession(model.SerializeToString()).run(None, {"a": np.eye(k, dtype=np.float32)})
    np.testing.assert_array_equal(found.values.reshape(columns, k), weight.T)
    assert (found.dtype, found.bits, found.elements) == ("UINT4", 4, columns * k)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    torch.manual_seed(0)
    path, x = tmp_path_factory.mktemp("codes") / "model.onnx", torch.randn(16, 1)
    export_onnx(prepared(mlp(), W4A8, (x,)), x, path)
    return path


def test_offsets_are_where_the_bytes_lie(file):
    data = file.read_bytes()
    for tensor in onnx.load(file).graph.initializer:
        start = offset_of(tensor, data)
        assert data[start : start + len(tensor.raw_data)] == tensor.raw_data


def test_the_picture_of_a_weight_shows_its_first_bytes_and_all_its_codes(file):
    tensor = Graph.open(file).packed["2.weight"]
    svg = nibbles_svg(tensor, 0)
    byte = tensor.data[0]
    low, high = ((half ^ 8) - 8 for half in (byte & 15, byte >> 4))
    assert f"0x{byte:02x}" in svg
    for code, value in ((low, tensor.values[0]), (high, tensor.values[1])):
        assert f"{code & 15:04b} {code:>4} {value:>12.6g}" in svg
    assert "All codes, 64 a row" in svg
    assert svg.count("h8v8h-8z") == 64 * 64
