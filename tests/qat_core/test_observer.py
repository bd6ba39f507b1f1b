"""Ranges of activations: what they take in, when, and what they refuse."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from qat_core import NoDataError, QATConfig, QuantSpec, calibrate, convert, distill, prepare
from qat_core.affine import SMALLEST_SCALE, dequantize, minmax_qparams, mse_qparams, quantize, to_groups
from qat_core.fake_quant import FakeQuantize
from qat_core.observer import MOMENTUM, OFF_TIES
from tests.qat_core import oracle

W4A8 = QATConfig(QuantSpec(), QuantSpec.activation(8))


def test_training_follows_a_moving_average_of_the_range():
    quantizer = FakeQuantize.for_activation(QuantSpec.activation())
    low = high = None
    for batch in (torch.tensor([-1.0, 2.0]), torch.tensor([-3.0, 1.0]), torch.tensor([0.5, 4.0])):
        quantizer(batch)
        first = low is None
        low = batch.min().item() if first else low + MOMENTUM * (batch.min().item() - low)
        high = batch.max().item() if first else high + MOMENTUM * (batch.max().item() - high)
    assert quantizer.source.low.item() == pytest.approx(low)
    assert quantizer.source.high.item() == pytest.approx(high)


def test_evaluation_and_a_frozen_observer_take_nothing_in():
    quantizer = FakeQuantize.for_activation(QuantSpec.activation())
    quantizer(torch.tensor([-1.0, 2.0]))
    quantizer.eval()(torch.tensor([-100.0, 100.0]))
    quantizer.train().source.observing = False
    quantizer(torch.tensor([-100.0, 100.0]))
    assert (quantizer.source.low.item(), quantizer.source.high.item()) == (-1, 2)


def test_calibration_takes_the_extremes_and_forgets_what_was_before():
    model = prepare(nn.Linear(2, 1), W4A8)
    model(torch.full((1, 2), 1000.0))
    was_training = model.training
    calibrate(
        model, [torch.tensor([[-1.0, 2.0]]), (torch.tensor([[0.0, 5.0]]),), {"input": torch.tensor([[1.0, 1.0]])}]
    )
    assert (model.input_quantizer.source.low.item(), model.input_quantizer.source.high.item()) == (-1, 5)
    assert model.training == was_training


def test_calibration_leaves_each_module_in_its_own_mode():
    model = prepare(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 1)), W4A8).train()
    model[1].eval()  # statistics that are to stay
    calibrate(model, [torch.randn(4, 2)])
    assert [module.training for module in model] == [True, False, True]


@pytest.mark.parametrize("scale", ["minmax", "mse"])
def test_a_batch_without_rows_says_nothing_about_a_range(scale):
    model = prepare(nn.Linear(2, 1), QATConfig(activation=QuantSpec.activation(scale=scale)))
    model(torch.tensor([[-1.0, 2.0]]))
    seen = model.input_quantizer.source.low.clone(), model.input_quantizer.source.high.clone()
    assert model(torch.empty(0, 2)).shape == (0, 1)
    assert (model.input_quantizer.source.low, model.input_quantizer.source.high) == seen
    dynamic = QuantSpec(bits=8, granularity="per_group", group_size=2, dynamic=True)
    assert prepare(nn.Linear(2, 1), QATConfig(activation=dynamic))(torch.empty(0, 2)).shape == (0, 1)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_ranges_follow_a_model_of_another_precision(dtype, after):
    model = prepare(nn.Linear(2, 1), W4A8).to(dtype) if after else prepare(nn.Linear(2, 1).to(dtype), W4A8)
    for high in (2.0, 4.0):
        assert model(torch.tensor([[-1.0, high]], dtype=dtype)).dtype == dtype
    assert model.input_quantizer.source.high.item() == pytest.approx(2 + MOMENTUM * 2, rel=0.01)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_numbers_that_are_not_finite_are_refused_by_the_name_of_the_layer(value):
    model = prepare(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1)), W4A8)
    batch, refused = (
        torch.tensor([[1.0, value]]),
        r"the \w+ end of the input of layer '0' has 1 values that are NaN or inf",
    )
    with pytest.raises(ValueError, match=refused):
        calibrate(model, [torch.ones(1, 2), batch])
    calibrate(model, [torch.ones(1, 2)]).train()(batch)  # in training it does not count
    assert model[0].input_quantizer.source.high.item() == 1
    convert(model)


def test_a_learned_scale_that_is_not_finite_is_refused():
    model = prepare(nn.Linear(2, 1), QATConfig(QuantSpec(scale="learned")))
    with torch.no_grad():
        model.weight_quantizer.source.log2_growth.fill_(torch.nan)
    with pytest.raises(ValueError, match=r"weight_quantizer.source.scale of layer 'model' has 1 values that are NaN"):
        convert(model)


@pytest.mark.parametrize(
    "batch", [{"input": torch.ones(1, 2)}, torch.ones(3, 2), "loader", 3], ids=lambda b: type(b).__name__
)
def test_one_batch_is_not_taken_for_many(batch):
    model = prepare(nn.Linear(2, 1), W4A8)
    said = rf"batches is a {type(batch).__name__}; expected an iterable of batches, such as \[batch\]"
    with pytest.raises(ValueError, match=said):
        calibrate(model, batch)
    with pytest.raises(ValueError, match=said):
        distill(model, nn.Linear(2, 1), batch, steps=1)


@pytest.mark.parametrize("scale", ["mse", "learned"])
def test_calibrated_scales_of_the_smallest_error_ignore_an_outlier(scale):
    torch.manual_seed(0)
    x = torch.randn(4096, 1)
    x[0] = 30
    model = prepare(nn.Linear(1, 1), QATConfig(QuantSpec(), QuantSpec.activation(4, scale=scale)))
    calibrate(model, [x])
    step, _ = model.input_quantizer.source.qparams(x)
    minmax, _ = minmax_qparams(x, QuantSpec.activation(4))
    assert step < 0.7 * minmax


@pytest.mark.parametrize("power_of_two", [False, True])
@pytest.mark.parametrize(("symmetric", "half_shift"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_calibration_keeps_the_scale_of_the_smallest_error(bits, symmetric, half_shift, power_of_two):
    torch.manual_seed(0)
    x = torch.randn(1024, 1) + 0.5
    spec = QuantSpec.activation(
        bits, scale="mse", symmetric=symmetric, half_shift=half_shift, power_of_two=power_of_two
    )
    model = calibrate(prepare(nn.Linear(1, 1), QATConfig(QuantSpec(), spec)), [x])
    scale, zero_point = model.input_quantizer.source.qparams(x)
    best, origin = mse_qparams(x, spec)
    assert scale.item() == pytest.approx(best.item() * (1 if power_of_two else OFF_TIES), rel=1e-6)
    assert (zero_point is None) == symmetric
    assert symmetric or zero_point.item() == origin.item()


@pytest.mark.parametrize("symmetric", [False, True])
def test_sums_of_units_lie_off_the_ties_of_a_calibrated_scale(symmetric):
    """The largest of them is n units; a tie counts if a few units in the last place of the largest decide it."""
    unit, off, on = 0.0123, 0, 0
    for n in range(1, 300):
        quantizer = FakeQuantize.for_activation(QuantSpec.activation(4, symmetric=symmetric))
        quantizer(torch.tensor([0.0, n * unit]))
        scale, _ = quantizer.eval().source.qparams(torch.empty(0))
        sums = np.arange(1, n + 1) * unit
        off += ties(sums / scale.item())
        on += ties(sums / (sums[-1] / quantizer.spec.quant_max))
    assert on > 250
    assert off == 0


def ties(steps):
    return int((np.abs(steps - np.floor(steps) - 0.5) < 4 * 2**-23 * steps[-1]).sum())


def test_what_is_on_a_grid_of_256_levels_keeps_its_codes():
    quantizer = FakeQuantize.for_activation(QuantSpec.activation(8))
    pixels = torch.arange(256) / 255
    quantizer(pixels)
    assert quantizer.codes(pixels).tolist() == list(range(256))


def test_no_data_is_a_sentence_that_names_the_layer():
    model = prepare(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1)), W4A8)
    with pytest.raises(NoDataError, match="no data yet: call calibrate"):
        model.eval()(torch.zeros(1, 2))
    with pytest.raises(NoDataError, match=r"layer '0': .*no data yet"):
        convert(model)
    with pytest.raises(ValueError, match="no batch"):
        calibrate(model, [])
    with pytest.raises(ValueError, match="was not prepared"):
        calibrate(nn.Linear(1, 1), [torch.zeros(1, 1)])


class Experts(nn.Module):
    def __init__(self):
        super().__init__()
        self.experts = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])

    def forward(self, x):
        return self.experts[int(x.mean() < 0)](x)


@pytest.mark.parametrize("scale", ["minmax", "mse", "learned"])
def test_a_layer_that_no_batch_reached_is_named_when_it_is_asked(scale):
    config = QATConfig(QuantSpec(), QuantSpec.activation(8, scale=scale))
    model = calibrate(prepare(Experts(), config), [torch.rand(3, 2)]).eval()
    for ask in (lambda: model(-torch.rand(3, 2)), lambda: convert(model)):
        with pytest.raises(NoDataError, match=r"layer 'experts.1': .*overrides={'experts.1': None}"):
            ask()


class Masked(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(2, 2)

    def forward(self, x, *, scale):
        return self.fc(x) * scale


@pytest.mark.parametrize(
    ("model", "batch", "given"),
    [
        (nn.Sequential(nn.Linear(2, 2)), (torch.ones(3, 2), torch.zeros(3)), "Tensor, Tensor"),
        (nn.Sequential(nn.Linear(2, 2)), [torch.ones(3, 2), 1], "Tensor, int"),
        (nn.Linear(2, 2), {"input": torch.ones(3, 2), "label": torch.zeros(3)}, "input, label"),
        (nn.Linear(2, 2), (), ""),
        (Masked(), torch.ones(3, 2), "Tensor"),
    ],
)
def test_a_batch_that_the_model_does_not_take_gets_a_sentence(model, batch, given):
    with pytest.raises(
        ValueError, match=rf"called with a batch of \({given}\): .*such as \(x for x, label in loader\)"
    ):
        calibrate(prepare(model, W4A8), [batch])


def test_ptq_is_prepare_and_calibrate():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 3)), torch.randn(256, 6)
    expected = model(x)
    ptq = calibrate(prepare(model, QATConfig(QuantSpec(bits=8), QuantSpec.activation(8))), x.split(64)).eval()
    assert (ptq(x) - expected).abs().max() < 0.02 * expected.abs().max()


@given(oracle.arrays(limit=2.0**60), st.sampled_from([2, 3, 4, 8]), st.booleans())
def test_the_mse_scale_is_never_worse_than_minmax(x, bits, symmetric):
    spec = QuantSpec(bits=bits, symmetric=symmetric)
    tensor = torch.from_numpy(x).double()

    def error(qparams):
        scale, zero_point = qparams
        codes = quantize(tensor, scale, zero_point, spec.quant_min, spec.quant_max)
        return ((dequantize(codes, scale, zero_point) - tensor) ** 2).sum(1)

    assert bool((error(mse_qparams(tensor, spec)) <= error(minmax_qparams(tensor, spec))).all())


@given(oracle.arrays(limit=2.0**60), st.integers(1, 5))
def test_dynamic_activations_round_as_the_quick_kernel_does(x, group_size):
    spec = QuantSpec(bits=8, granularity="per_group", group_size=group_size, dynamic=True)
    quantizer = FakeQuantize.for_activation(spec)
    y, codes = quantizer(torch.from_numpy(x)).numpy(), quantizer.codes(torch.from_numpy(x)).numpy()
    for row, values, row_codes in zip(x, y, codes, strict=True):
        for start in range(0, len(row), group_size):
            here = slice(start, start + group_size)
            largest = np.maximum(np.abs(row[here]).max(), np.float32(127 * SMALLEST_SCALE))
            expected = np.rint(row[here] * (np.float32(127) / largest))
            np.testing.assert_array_equal(row_codes[here], expected)
            np.testing.assert_array_equal(values[here], expected * (largest / np.float32(127)))


def test_dynamic_scales_are_rounded_once():
    """The factor is 127 / largest: 1 / scale, and torch's 127 / tensor, round twice and give other codes."""
    x = torch.tensor([[3.226496696472168, -1.537031888961792]])
    spec = QuantSpec(bits=8, granularity="per_group", dynamic=True)
    codes = FakeQuantize.for_activation(spec).codes(x).numpy()
    largest = np.abs(x.numpy()).max(1, keepdims=True)
    np.testing.assert_array_equal(codes, np.rint(x.numpy() * (np.float32(127) / largest)))
    assert (codes != np.rint(x.numpy() * (np.float32(1) / (largest / np.float32(127))))).any()
    assert (torch.from_numpy(codes) != (x * (127 / torch.from_numpy(largest))).round()).any()


def test_the_gradient_of_dynamic_activations_is_the_identity():
    x = torch.randn(3, 10, requires_grad=True)
    grad = torch.randn(3, 10)
    FakeQuantize.for_activation(QuantSpec(bits=8, granularity="per_group", group_size=4, dynamic=True))(x).backward(
        grad
    )
    assert torch.equal(x.grad, grad)


def test_dynamic_rows_do_not_see_each_other():
    quantizer = FakeQuantize.for_activation(QATConfig(activation=QuantSpec(bits=8, dynamic=True)).activation)
    x = torch.randn(2, 3, 8)
    alone = torch.stack([torch.stack([quantizer(row[None])[0] for row in rows]) for rows in x])
    assert torch.equal(quantizer(x), alone)


@given(oracle.arrays(limit=2.0**60), st.integers(1, 12), st.sampled_from([2, 4]))
def test_groups_are_neighbours_in_a_row_and_the_last_may_be_short(x, group_size, bits):
    spec = QuantSpec(bits=bits, granularity="per_group", group_size=group_size)
    tensor = torch.from_numpy(x)
    y = FakeQuantize.for_weight(spec, tensor)(tensor).numpy()
    assert to_groups(tensor, spec).shape[1] == -(-x.shape[1] // group_size)
    for row, answer in zip(x, y, strict=True):
        for start in range(0, len(row), group_size):
            block = row[start : start + group_size]
            scale = np.maximum(np.abs(block).max() / np.float32(spec.quant_max), np.float32(SMALLEST_SCALE))
            _, values = oracle.fake_quantize(block, scale, 0, spec.quant_min, spec.quant_max)
            np.testing.assert_array_equal(answer[start : start + group_size], values)
