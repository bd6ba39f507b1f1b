"""The arithmetic against numpy and against onnxruntime's own operators, at tolerance zero."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from qat_core import QuantSpec
from qat_core.affine import SMALLEST_SCALE, dequantize, minmax_qparams, quantize
from tests.qat_core import oracle

BITS = [1.58, 2, 3, 4, 8]
INTEGERS = {(True, 8): TensorProto.INT8, (False, 8): TensorProto.UINT8, (True, 4): TensorProto.INT4}


@given(oracle.arrays(), oracle.scales(), st.sampled_from(BITS), st.booleans(), st.data())
def test_quantize_and_dequantize_equal_numpy(x, scale, bits, symmetric, data):
    spec = QuantSpec(bits=bits, symmetric=symmetric)
    zero_point = 0 if symmetric else data.draw(st.integers(spec.quant_min, spec.quant_max))
    scale_t = torch.tensor(scale)
    zero_point_t = None if symmetric else torch.tensor(float(zero_point))
    codes = quantize(torch.from_numpy(x), scale_t, zero_point_t, spec.quant_min, spec.quant_max)
    values = dequantize(codes, scale_t, zero_point_t)
    expected_codes, expected_values = oracle.fake_quantize(x, scale, zero_point, spec.quant_min, spec.quant_max)
    np.testing.assert_array_equal(codes.numpy(), expected_codes)
    np.testing.assert_array_equal(values.numpy(), expected_values)


@pytest.mark.parametrize(("symmetric", "bits"), INTEGERS)
def test_codes_and_values_equal_onnxruntimes_operators(symmetric, bits):
    spec = QuantSpec(bits=bits, symmetric=symmetric)
    zero_point = 0 if symmetric else 117
    answer = _qdq_session(INTEGERS[symmetric, bits], zero_point)

    @given(oracle.arrays(max_side=6), oracle.scales())
    def agrees(x, scale):
        feed = {"x": x, "scale": np.array(scale, np.float32)}
        codes, values = answer.run(None, feed)
        zero_point_t = None if symmetric else torch.tensor(float(zero_point))
        ours = quantize(torch.from_numpy(x), torch.tensor(scale), zero_point_t, spec.quant_min, spec.quant_max)
        np.testing.assert_array_equal(ours.numpy(), codes)
        np.testing.assert_array_equal(dequantize(ours, torch.tensor(scale), zero_point_t).numpy(), values)

    agrees()


def _qdq_session(dtype, zero_point):
    """onnxruntime's codes, cast to int32 to be readable, and values."""
    graph = helper.make_graph(
        [
            helper.make_node("QuantizeLinear", ["x", "scale", "zero_point"], ["q"]),
            helper.make_node("Cast", ["q"], ["codes"], to=TensorProto.INT32),
            helper.make_node("DequantizeLinear", ["q", "scale", "zero_point"], ["values"]),
        ],
        "qdq",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, None]),
            helper.make_tensor_value_info("scale", TensorProto.FLOAT, []),
        ],
        [
            helper.make_tensor_value_info("codes", TensorProto.INT32, [None, None]),
            helper.make_tensor_value_info("values", TensorProto.FLOAT, [None, None]),
        ],
        [helper.make_tensor("zero_point", dtype, [], [zero_point])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(model.SerializeToString(), options)


@given(oracle.arrays(), st.sampled_from(BITS), st.booleans(), st.sampled_from(["per_tensor", "per_channel"]))
def test_minmax_scale_covers_the_range_and_wastes_nothing(x, bits, symmetric, granularity):
    spec = QuantSpec(bits=bits, symmetric=symmetric, granularity=granularity)
    tensor = torch.from_numpy(x)
    scale, zero_point = minmax_qparams(tensor, spec)
    assert scale.shape == (() if granularity == "per_tensor" else (len(x), 1))
    assert bool((scale >= SMALLEST_SCALE).all())
    if zero_point is not None:  # rounded itself: an end of the range may lie half a step outside
        position = tensor / scale + zero_point
        assert bool((position >= spec.quant_min - 0.501).all() and (position <= spec.quant_max + 0.501).all())
        return
    unclamped = torch.round(tensor / scale)
    assert bool((unclamped >= spec.quant_min).all())
    assert bool((unclamped <= spec.quant_max).all())
    if (np.abs(x) > 1e-10).all():  # otherwise SMALLEST_SCALE decides
        codes = unclamped.abs()
        largest = codes.max() if granularity == "per_tensor" else codes.amax(1)
        assert bool((largest == spec.quant_max).all())


@given(oracle.arrays(), st.sampled_from([2, 4, 8]), st.sampled_from(["per_tensor", "per_channel"]))
def test_asymmetric_grids_hold_zero_exactly(x, bits, granularity):
    spec = QuantSpec(bits=bits, symmetric=False, granularity=granularity)
    scale, zero_point = minmax_qparams(torch.from_numpy(x), spec)
    assert zero_point is not None
    codes = quantize(torch.zeros(x.shape), scale, zero_point, spec.quant_min, spec.quant_max)
    assert bool((dequantize(codes, scale, zero_point) == 0).all())


@given(oracle.arrays(), st.sampled_from(BITS))
def test_power_of_two_scales_are_powers_of_two_and_cover_the_range(x, bits):
    spec = QuantSpec(bits=bits, power_of_two=True)
    scale, _ = minmax_qparams(torch.from_numpy(x), spec)
    mantissa, _ = torch.frexp(scale)
    assert bool((mantissa == 0.5).all())
    assert bool((torch.round(torch.from_numpy(x) / scale).abs() <= spec.quant_max).all())


@given(oracle.arrays(), st.sampled_from(BITS), st.booleans())
def test_values_on_the_grid_stay_where_they_are(x, bits, symmetric):
    spec = QuantSpec(bits=bits, symmetric=symmetric)
    scale, zero_point = minmax_qparams(torch.from_numpy(x), spec)
    codes = quantize(torch.from_numpy(x), scale, zero_point, spec.quant_min, spec.quant_max)
    again = quantize(dequantize(codes, scale, zero_point), scale, zero_point, spec.quant_min, spec.quant_max)
    assert torch.equal(codes, again)
