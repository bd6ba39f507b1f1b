"""Which axes vary: enlarging an example, trying other sizes, and what a user says of them."""

import pytest
import torch
from torch import nn

from export.write.axes import declared, enlarged, other_sizes, resized, takes, with_sizes
from export.write.call import Call

AUTO = torch.export.Dim.AUTO


class States(nn.Module):
    def __init__(self, layers):
        super().__init__()
        self.rnn = nn.LSTM(3, 4, layers, batch_first=True)

    def forward(self, x, h, c):
        return self.rnn(x, (h, c))


class Cache(nn.Module):
    def forward(self, token, past):
        return token + sum(p.sum() for p in past)


def sizes_enlarged(model, *inputs):
    call = Call.of(model, inputs)
    return [tuple(x.shape) for x in enlarged(call.tensors, takes(model))]


def test_a_batch_of_one_is_doubled_where_the_model_takes_it():
    x, h = torch.randn(1, 5, 3), torch.randn(2, 1, 4)
    assert sizes_enlarged(States(2), x, h, h) == [(2, 5, 3), (2, 2, 4), (2, 2, 4)]
    assert sizes_enlarged(States(1), x, h[:1], h[:1]) == [(2, 5, 3), (1, 2, 4), (1, 2, 4)]
    assert sizes_enlarged(nn.Linear(3, 2), torch.randn(1, 3)) == [(2, 3)]
    assert sizes_enlarged(nn.Linear(3, 2), torch.randn(3, 3)) == [(3, 3)]
    assert sizes_enlarged(nn.Bilinear(3, 4, 2), torch.randn(1, 3), torch.randn(1, 4)) == [(2, 3), (2, 4)]
    assert sizes_enlarged(nn.Unflatten(0, (1, 1)), torch.randn(1, 3)) == [(1, 3)]


def test_resizing_repeats_what_is_there():
    assert resized(torch.tensor([[5, 6, 7]]), {1: 5}).tolist() == [[5, 6, 7, 5, 6]]
    assert resized(torch.tensor([[5, 6, 7]]), {1: 2, 0: 2}).tolist() == [[5, 6], [5, 6]]


@pytest.mark.parametrize(
    ("model", "shape", "symbols", "found"),
    [
        (nn.Conv2d(1, 1, 3), (2, 1, 8, 8), {0: "b", 2: "h", 3: "w"}, [{"b": 3, "h": 9, "w": 9}]),
        (nn.Sequential(nn.Flatten(), nn.Linear(16, 1)), (2, 1, 4, 4), {0: "b", 2: "h", 3: "w"}, [{"b": 3}]),
        (nn.PixelUnshuffle(2), (2, 1, 4, 6), {0: "b", 2: "h", 3: "w"}, [{"b": 3, "h": 8, "w": 12}]),
        (nn.Unflatten(0, (3, 1)), (3, 2), {0: "b"}, []),
    ],
)
def test_sizes_are_tried_on_the_model(model, shape, symbols, found):
    call = Call.of(model, torch.randn(shape))
    sizes = other_sizes(call.tensors, (symbols,), takes(model))
    assert sizes == found
    for size in sizes:
        model(*with_sizes(call.tensors, (symbols,), size))


def test_axes_are_said_as_torch_says_them():
    call = Call.of(Cache(), (torch.ones(2, 1), [torch.ones(2, 3), torch.ones(2, 4)]))
    assert declared(call, {"token": {0: "batch"}}) == ({0: "batch"}, None, None)
    assert declared(call, ({0: AUTO}, [{1: AUTO}, None])) == ({0: AUTO}, {1: AUTO}, None)
    assert declared(call, {"past": [(None, AUTO), {-1: AUTO}]}) == (None, {1: AUTO}, {1: AUTO})
    for said, sentence in (
        ({"tokens": None}, "names 'tokens'; expected some of token, past"),
        ({"token": {2: AUTO}}, "axis 2 for 'token', which has 2 axes"),
        ((None, None, None), "3 entries; expected 2"),
        ({"past": {0: AUTO}}, "has DimHint.* for 'past'; expected axes"),
        ({"past": {"key": {0: AUTO}}}, "in place of a list of 2; expected the same container"),
        (5, "dynamic_shapes=5; expected a mapping"),
    ):
        with pytest.raises(ValueError, match=sentence):
            declared(call, said)
