"""A recurrent layer stays quantized when somebody swaps its parameters, as torch.func and torch.export do."""

import torch
from torch import nn
from torch.func import functional_call

from qat_core import prepare


def test_recurrent_layers_quantize_the_parameters_they_are_called_with():
    torch.manual_seed(0)
    layer, fresh, x = prepare(nn.LSTM(3, 4)), prepare(nn.LSTM(3, 4)), torch.randn(5, 2, 3)
    functional_call(layer, dict(fresh.named_parameters()), (x,))
    swapped, _ = functional_call(layer, dict(fresh.named_parameters()), (x,))
    assert torch.equal(swapped, fresh(x)[0])
    layer.load_state_dict(fresh.state_dict())
    assert torch.equal(layer(x)[0], fresh(x)[0])
