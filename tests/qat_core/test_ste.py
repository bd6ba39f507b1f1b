"""The gradient that is a lie, against the formula written out separately, and the truth it replaces."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from qat_core import STEQuantize
from tests.qat_core import oracle


@given(oracle.arrays(), oracle.scales(), st.data())
def test_forward_equals_numpy_and_backward_is_identity_inside_the_range(x, scale, data):
    quant_min, quant_max = -8, 7
    zero_point = data.draw(st.sampled_from([0, 3]))
    zero_point_t = torch.tensor(float(zero_point)) if zero_point else None
    latent = torch.from_numpy(x.copy()).requires_grad_()
    y = STEQuantize.apply(latent, torch.tensor(scale), zero_point_t, quant_min, quant_max)
    _, expected = oracle.fake_quantize(x, scale, zero_point, quant_min, quant_max)
    np.testing.assert_array_equal(y.detach().numpy(), expected)

    upstream = np.arange(1, x.size + 1, dtype=np.float32).reshape(x.shape)
    y.backward(torch.from_numpy(upstream))
    unclamped = oracle.unclamped(x, scale, zero_point)
    inside = (unclamped >= quant_min) & (unclamped <= quant_max)
    np.testing.assert_array_equal(latent.grad.numpy(), np.where(inside, upstream, 0))


def test_plain_rounding_has_no_gradient_and_the_estimator_has():
    weight = torch.linspace(-1, 1, 11, requires_grad=True)
    (torch.round(weight / 0.25) * 0.25).sum().backward()
    assert bool((weight.grad == 0).all())
    weight.grad = None
    STEQuantize.apply(weight, torch.tensor(0.25), None, -8, 7).sum().backward()
    assert bool((weight.grad == 1).all())


def test_a_latent_weight_learns_through_the_estimator_and_stays_put_without_it():
    target, scale = torch.tensor(0.75), torch.tensor(0.25)
    for quantize_weight, expected in (
        (lambda w: torch.round(w / scale) * scale, 0.0),
        (lambda w: STEQuantize.apply(w, scale, None, -8, 7), 0.75),
    ):
        weight = torch.zeros((), requires_grad=True)
        optimizer = torch.optim.SGD([weight], lr=0.1)
        for _ in range(200):
            optimizer.zero_grad()
            ((quantize_weight(weight) - target) ** 2).backward()
            optimizer.step()
        assert quantize_weight(weight).item() == expected
