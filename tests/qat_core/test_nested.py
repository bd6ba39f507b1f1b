"""Nested tensors: rows of several lengths, quantized as all rows together."""

import copy

import pytest
import torch
from torch import nn

from qat_core import QATConfig, QuantSpec, prepare


@pytest.mark.parametrize("layout", [torch.jagged, torch.strided])
@pytest.mark.parametrize(
    "activation", [None, *(QuantSpec.activation(scale=s) for s in ("minmax", "learned")), QuantSpec(8, dynamic=True)]
)
def test_rows_of_several_lengths_get_the_numbers_and_gradients_of_all_rows_together(layout, activation):
    torch.manual_seed(0)
    model = prepare(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)), QATConfig(activation=activation))
    together, parts = copy.deepcopy(model), [torch.randn(3, 4), torch.randn(5, 4)]
    nested = torch.nested.nested_tensor(parts, layout=layout)
    for modes in (nn.Module.train, nn.Module.eval):
        answers = [modes(model)(nested), modes(together)(torch.cat(parts))]
        assert torch.equal(torch.cat(answers[0].unbind()), answers[1])
    sum(part.square().sum() for part in answers[0].unbind()).backward()
    answers[1].square().sum().backward()
    for one, other in zip(model.parameters(), together.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)
