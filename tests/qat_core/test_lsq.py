"""The learned scale: its gradient against the paper's formula, and against finite differences where it is smooth."""

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import nn

from qat_core import QATConfig, QuantSpec, prepare
from qat_core.affine import mse_qparams
from qat_core.lsq import RATE, LSQuantize, gradient_factor
from tests.qat_core import oracle

# Where the squared error of a normal distribution on the signed grid is smallest, in standard deviations: integrated
# over its density on a fine mesh, for 200 scales.
NORMAL = {2: 1.05, 3: 0.603, 4: 0.339}
SMALL = hnp.arrays(np.float64, (4, 6), elements=st.floats(-3, 3))


@given(SMALL, st.floats(0.05, 2), st.sampled_from([2, 4, 8]), st.sampled_from([0.0, 0.5]), st.booleans())
def test_gradients_are_those_of_the_paper(x, scale, bits, shift, per_channel):
    quant_min, quant_max = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    scales = np.full((4, 1) if per_channel else (), scale)
    if per_channel:
        scales *= np.array([[1], [2], [0.5], [1.5]])
    v = x / scales - shift
    unclamped = np.rint(v)
    inside = (unclamped >= quant_min) & (unclamped <= quant_max)
    level = np.clip(unclamped, quant_min, quant_max) + shift
    slope = np.where(inside, level - (v + shift), level)  # equation 3
    upstream = np.arange(24.0).reshape(4, 6) - 11
    elements = 6 if per_channel else 24
    expected = (upstream * slope).sum(1, keepdims=True) if per_channel else (upstream * slope).sum()

    latent, step = torch.from_numpy(x.copy()).requires_grad_(), torch.from_numpy(scales).requires_grad_()
    y = LSQuantize.apply(latent, step, None, quant_min, quant_max, shift)
    y.backward(torch.from_numpy(upstream))
    np.testing.assert_array_equal(y.detach().numpy(), level * scales)
    np.testing.assert_array_equal(latent.grad.numpy(), np.where(inside, upstream, 0))
    factor = 1 / np.sqrt(elements * quant_max)
    np.testing.assert_allclose(step.grad.numpy(), expected * factor, rtol=1e-9, atol=1e-9)
    assert gradient_factor(elements, quant_max) == pytest.approx(factor, rel=1e-15)


@given(SMALL, st.floats(0.1, 1))
def test_scale_gradient_where_everything_is_clamped_equals_finite_differences(x, scale):
    """There the output is a smooth function of the scale: level x scale."""
    x = x + np.where(x >= 0, 100, -100)  # far outside of the range
    upstream = torch.linspace(-1, 1, 24, dtype=torch.float64).reshape(4, 6)

    def loss(s):
        return (upstream * LSQuantize.apply(torch.from_numpy(x), s, None, -8, 7)).sum()

    step = torch.tensor(scale, dtype=torch.float64, requires_grad=True)
    loss(step).backward()
    with torch.no_grad():
        difference = (loss(step + 1e-6) - loss(step - 1e-6)) / 2e-6
    assert step.grad.item() == pytest.approx(difference.item() * gradient_factor(24, 7), rel=1e-6, abs=1e-9)


@given(SMALL, st.floats(0.1, 1))
def test_scale_gradient_is_that_of_the_smooth_estimator(x, scale):
    """With round() replaced by its straight line plus a constant, autograd gives the same number."""
    v = x / scale
    assume((np.abs(np.abs(v - np.rint(v)) - 0.5) > 1e-6).all())
    rounding = torch.from_numpy(np.rint(v) - v)

    def smooth(s):
        line = torch.from_numpy(x) / s + rounding  # round(v) where v moves along the line
        return torch.clamp(line, -8, 7) * s

    step = torch.tensor(scale, dtype=torch.float64, requires_grad=True)
    upstream = torch.linspace(-1, 1, 24, dtype=torch.float64).reshape(4, 6)
    (expected,) = torch.autograd.grad((upstream * smooth(step)).sum(), step)
    (found,) = torch.autograd.grad((upstream * LSQuantize.apply(torch.from_numpy(x), step, None, -8, 7)).sum(), step)
    on_the_edge = np.isin(np.rint(v), (-8, 7)).any()
    if not on_the_edge:  # torch.clamp's own gradient at its ends is a matter of convention
        assert found.item() == pytest.approx(expected.item() * gradient_factor(24, 7), rel=1e-9, abs=1e-9)


@given(oracle.arrays(limit=2.0**40), st.sampled_from([2, 3, 4]), st.booleans())
def test_a_learned_scale_begins_with_the_smallest_error_of_the_weight_or_of_a_normal_one(x, bits, per_channel):
    spec = QuantSpec(bits=bits, granularity="per_channel" if per_channel else "per_tensor", scale="learned")
    layer = nn.Linear(x.shape[1], x.shape[0], bias=False)
    layer.weight.data = torch.from_numpy(x.copy())
    prepared = prepare(layer, QATConfig(spec))
    best, _ = mse_qparams(layer.weight.detach(), spec)
    deviation = (x.astype(np.float64) ** 2).mean(1 if per_channel else None, keepdims=per_channel) ** 0.5
    assume((deviation > 2.0**-30).all())
    normal = torch.from_numpy(np.asarray(NORMAL[bits] * deviation)).float().reshape(best.shape)
    scale, _ = prepared.weight_quantizer.source.qparams(layer.weight)
    scale = scale.reshape(best.shape)
    torch.testing.assert_close(scale, torch.maximum(best, normal), rtol=0.03, atol=0)
    own = best > 1.03 * normal
    torch.testing.assert_close(scale[own], best[own], rtol=1e-4, atol=0)


@pytest.mark.parametrize("begin", [0.2, 5.0])
@pytest.mark.parametrize("size", [1, 2**-8])
@pytest.mark.parametrize("optimizer", ["Adam", "SGD"])
def test_a_scale_far_off_learns_its_way_back(begin, size, optimizer):
    """Too small a scale clamps nearly everything, too large a one rounds nearly everything to 0.

    With a rate at which the weights themselves, were they to learn, would go all their way in a step.
    """
    torch.manual_seed(0)
    layer = nn.Linear(32, 32, bias=False)
    target = layer.weight.detach().mul_(size)
    prepared = prepare(layer, QATConfig(QuantSpec(3, granularity="per_tensor", scale="learned")))
    best = (prepared.weight_quantizer(target) - target).square().sum().item()
    source = prepared.weight_quantizer.source
    source.begin.add_(torch.tensor(begin).log2())
    lr = {"Adam": 0.05 / RATE, "SGD": 0.5}[optimizer]
    optimizer = getattr(torch.optim, optimizer)([source.log2_growth], lr=lr)
    for _ in range(300):
        optimizer.zero_grad()
        error = (prepared.weight_quantizer(target) - target).square().sum()
        error.backward()
        optimizer.step()
    assert error.item() < 1.5 * best


@pytest.mark.parametrize("granularity", ["per_tensor", "per_channel", "per_group"])
def test_descent_moves_the_logarithm_of_a_scale_as_it_would_a_weight_counted_in_stairs(granularity):
    """Autograd in float64, in the natural logarithm, at the weights' rate / (six of the stairs it began with)^2.

    Of a weight that has one scale.
    """
    torch.manual_seed(0)
    spec = QuantSpec(3, granularity, group_size=8, scale="learned")
    prepared = prepare(nn.Linear(16, 6, bias=False), QATConfig(spec))
    upstream, rate = torch.randn(6, 16), 0.3
    growth = prepared.weight_quantizer.source.log2_growth
    groups = prepared.weight_quantizer._groups(prepared.weight.detach())
    unit = 1 / (RATE * math.log(2))  # of channels and groups: what autograd finds
    if granularity == "per_tensor":
        unit = 6 * prepared.weight_quantizer.source.qparams(groups)[0].item()
    with torch.no_grad():
        growth.normal_(std=0.2)
    before = growth.detach().double()
    scale = prepared.weight_quantizer.source.qparams(groups)[0].detach().double()
    (upstream * prepared.weight_quantizer(prepared.weight)).sum().backward()
    torch.optim.SGD([growth], lr=rate).step()

    w = groups.double()
    log = scale.log().requires_grad_()
    v = w / log.exp()
    codes = v.detach().round().clamp(-4, 3)
    y = log.exp() * torch.where(v.round() == codes, v + (codes - v).detach(), codes)
    (gradient,) = torch.autograd.grad((upstream.double().reshape(w.shape) * y).sum(), log)
    elements = w.numel() / scale.numel()
    moved = -rate / unit**2 * gradient / math.sqrt(elements * 3)
    torch.testing.assert_close(
        (growth.detach().double() - before) * RATE * math.log(2), moved.reshape(growth.shape), rtol=1e-4, atol=1e-6
    )


def test_sixteen_times_the_rate_is_right_for_weights_four_times_as_large():
    """Codes are then the same, and what scales have learned but for the rounding of the logarithms they begin with."""
    x, found = torch.randn(64, 16, generator=torch.Generator().manual_seed(0)), []
    for times in (1, 4):
        torch.manual_seed(0)
        layer = nn.Linear(16, 6, bias=False)
        layer.weight.data.mul_(times)
        prepared = prepare(layer, QATConfig(QuantSpec(3, "per_tensor", scale="learned")))
        optimizer = torch.optim.SGD(prepared.parameters(), lr=0.1 * times**2, momentum=0.9)
        for _ in range(20):
            optimizer.zero_grad()
            (prepared(x) / times).sin().sum(1).square().mean().backward()
            optimizer.step()
        found.append((prepared.weight_quantizer.source.log2_growth, prepared.weight_quantizer.codes(prepared.weight)))
    (growth, codes), (of_large, codes_of_large) = found
    assert growth.abs().max() > 1e-3
    torch.testing.assert_close(growth, of_large, rtol=1e-4, atol=1e-6)
    assert torch.equal(codes, codes_of_large)


def test_adam_moves_scales_as_by_the_gradient_that_autograd_finds():
    """Where gradients are large beside its epsilon."""
    x, found = torch.randn(64, 16, generator=torch.Generator().manual_seed(0)), []
    for own in (False, True):
        torch.manual_seed(0)
        prepared = prepare(nn.Linear(16, 6), QATConfig(QuantSpec(3, "per_tensor", scale="learned")))
        source = prepared.weight_quantizer.source
        assert (source.pace > 1).all()
        if own:
            source.pace.fill_(1)
        optimizer = torch.optim.Adam([source.log2_growth], lr=0.01, eps=1e-20)
        for _ in range(20):
            optimizer.zero_grad()
            prepared(x).sin().sum(1).square().mean().backward()
            optimizer.step()
        found.append(source.log2_growth.detach())
    assert found[0].abs().max() > 0.05
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-5)


def test_a_scale_that_begins_on_zeros_keeps_the_gradient_that_autograd_finds():
    """There is no stair to count in, until the model is prepared anew."""
    layer = nn.Linear(16, 6, bias=False)
    nn.init.zeros_(layer.weight)
    prepared = prepare(layer, QATConfig(QuantSpec(3, granularity="per_tensor", scale="learned")))
    nn.init.ones_(prepared.weight)
    prepared(torch.ones(1, 16))
    assert prepared.weight_quantizer.source.pace == 1


def test_an_activations_scale_has_the_gradient_of_its_formula():
    """Its logarithm is no part of a weight, whatever its input's size: autograd in float64."""
    prepared = prepare(nn.Linear(4, 3), QATConfig(QuantSpec(), QuantSpec.activation(4, scale="learned")))
    quantizer = prepared.input_quantizer
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0)) * 0.01
    quantizer(x)
    growth = quantizer.source.log2_growth
    upstream = torch.linspace(-1, 1, 256).reshape(64, 4)
    (upstream * quantizer(x)).sum().backward()

    learned = growth.detach().double().requires_grad_()
    scale = (quantizer.source.begin.double() + RATE * learned).exp2()
    _, zero_point = quantizer.source.qparams(x)
    v, zero = x.double() / scale, zero_point.double()
    low, high = quantizer.spec.quant_min - zero, quantizer.spec.quant_max - zero
    codes = v.detach().round().clamp(low, high)
    y = scale * torch.where(v.round() == codes, v + (codes - v).detach(), codes)
    (expected,) = torch.autograd.grad((upstream.double() * y).sum(), learned)
    factor = gradient_factor(256, quantizer.spec.quant_max)
    torch.testing.assert_close(growth.grad.double(), expected * factor, rtol=1e-4, atol=1e-7)


def test_power_of_two_scales_stay_powers_of_two_while_they_learn():
    torch.manual_seed(0)
    prepared = prepare(nn.Linear(5, 3), QATConfig(QuantSpec(scale="learned", power_of_two=True)))
    optimizer = torch.optim.SGD(prepared.parameters(), lr=0.08)  # from 0.1 on, float32 diverges as well
    seen = set()
    for _ in range(20):
        optimizer.zero_grad()
        prepared(torch.ones(2, 5)).square().sum().backward()
        optimizer.step()
        scale, _ = prepared.weight_quantizer.source.qparams(prepared.weight)
        assert bool((torch.frexp(scale).mantissa == 0.5).all())
        seen.add(tuple(scale.flatten().tolist()))
    assert len(seen) > 1


def test_an_fp32_checkpoint_makes_a_learned_scale_begin_anew():
    prepared = prepare(nn.Linear(5, 3), QATConfig(QuantSpec(scale="learned")))
    other = nn.Linear(5, 3)
    with torch.no_grad():
        other.weight.mul_(100)
    assert prepared.load_state_dict(other.state_dict()).missing_keys == []
    fresh = prepare(other, QATConfig(QuantSpec(scale="learned")))
    assert torch.equal(prepared(torch.ones(1, 5)), fresh(torch.ones(1, 5)))


def test_a_checkpoint_of_its_own_brings_the_scale_back():
    config = QATConfig(QuantSpec(scale="learned"), QuantSpec.activation(scale="learned"))
    trained = prepare(nn.Linear(5, 3), config)
    trained(torch.randn(7, 5))
    with torch.no_grad():
        trained.weight_quantizer.source.log2_growth.add_(0.7)
    loaded = prepare(nn.Linear(5, 3), config)
    loaded.load_state_dict(trained.state_dict())
    x = torch.randn(2, 5)
    assert torch.equal(loaded.eval()(x), trained.eval()(x))


@pytest.mark.parametrize(
    ("granularity", "shape"), [("per_tensor", (1,)), ("per_channel", (6, 1)), ("per_group", (6, 3, 1))]
)
def test_there_are_as_many_learned_scales_as_the_granularity_says(granularity, shape):
    spec = QuantSpec(granularity=granularity, group_size=4, scale="learned")
    layer = prepare(nn.Linear(10, 6), QATConfig(spec))
    layer(torch.randn(3, 10)).square().sum().backward()
    scale = layer.weight_quantizer.source.log2_growth
    assert scale.shape == scale.grad.shape == shape
