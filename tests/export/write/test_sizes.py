"""Which sizes a model takes: enlarging an example, telling equal sizes apart."""

import torch
from torch import nn

from export.write.call import Call
from export.write.sizes import enlarged, longer, resized, takes, told_apart, varying


class States(nn.Module):
    def __init__(self, layers):
        super().__init__()
        self.rnn = nn.LSTM(3, 4, layers, batch_first=True)

    def forward(self, x, h, c):
        return self.rnn(x, (h, c))


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


def test_an_axis_of_one_is_doubled_where_the_model_takes_two_and_three():
    class Masked(nn.Module):
        def forward(self, x, mask):  # (batch, heads, length, head_dim), and what goes with any of the first three
            return torch.softmax(x @ x.mT + mask, -1) @ x

    def sizes_longer(model, *inputs):
        return [tuple(x.shape) for x in longer(inputs, takes(model))]

    states = torch.randn(1, 2, 4)
    assert sizes_longer(nn.Linear(1, 4), torch.randn(2, 1)) == [(2, 1)]
    assert sizes_longer(nn.Conv2d(1, 2, 3, padding=1), torch.randn(2, 1, 1, 1)) == [(2, 1, 2, 2)]
    assert sizes_longer(nn.Bilinear(3, 4, 2), torch.randn(2, 1, 3), torch.randn(2, 1, 4)) == [(2, 2, 3), (2, 2, 4)]
    assert sizes_longer(States(1), torch.randn(2, 1, 3), states, states) == [(2, 2, 3), (1, 2, 4), (1, 2, 4)]
    assert sizes_longer(Masked(), torch.randn(2, 2, 5, 4), torch.zeros(2, 1, 1, 5)) == [(2, 2, 5, 4), (2, 1, 1, 5)]


def test_resizing_repeats_what_is_there():
    assert resized(torch.tensor([[5, 6, 7]]), {1: 5}).tolist() == [[5, 6, 7, 5, 6]]
    assert resized(torch.tensor([[5, 6, 7]]), {1: 2, 0: 2}).tolist() == [[5, 6], [5, 6]]


def axes_that_vary(model, *inputs):
    places = [place for group in varying(inputs, takes(model)) for place in group]
    return [sorted({axis for i, axis in places if i == index}) for index in range(len(inputs))]


def test_an_axis_varies_where_the_model_takes_another_size_along_it():
    class Masked(nn.Module):
        def forward(self, x, mask):
            return torch.softmax(x @ x.mT + mask, -1) @ x

    pooled = nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 2))
    assert axes_that_vary(nn.Linear(3, 2), torch.randn(5, 3)) == [[0]]
    assert axes_that_vary(nn.Linear(3, 2), torch.randn(3, 3)) == [[0]]
    assert axes_that_vary(nn.Conv2d(3, 4, 3), torch.randn(2, 3, 8, 8)) == [[0, 2, 3]]
    assert axes_that_vary(pooled, torch.randn(2, 3, 8, 8)) == [[0]], "8 and 9 fit, since the pooling drops an edge"
    assert axes_that_vary(nn.Bilinear(3, 3, 2), torch.randn(4, 3), torch.randn(4, 3)) == [[0], [0]]
    assert axes_that_vary(Masked(), torch.randn(5, 5, 4), torch.zeros(5, 5)) == [[0, 1, 2], [0, 1]]
    states = torch.randn(2, 2, 4)
    assert axes_that_vary(States(2), torch.randn(2, 5, 3), states, states) == [[0, 1], [1], [1]]


def test_axes_of_one_size_go_with_the_one_in_the_same_place_where_the_model_takes_that():
    x, mask = torch.randn(4, 4, 4), torch.ones(4, 4)
    assert varying((x, mask), lambda _: True) == [((0, 0), (1, 0)), ((0, 1), (1, 1)), ((0, 2),)]

    class Square(nn.Module):
        def forward(self, x, near):
            return near.view(x.shape[0], x.shape[0]) @ x.view(x.shape[0], 4)

    assert varying((torch.randn(4, 4), torch.ones(4, 4)), takes(Square())) == [((0, 0), (1, 0), (1, 1))]


def test_what_is_of_one_size_is_told_apart():
    def grown(x, mask):
        x, mask = torch.randn(x), torch.ones(mask)

        def works(tensors):
            (a, b, c), (d, e) = (t.shape for t in tensors)
            return c == 4 and (a, b) == (e, d)

        groups = varying((x, mask), works)
        return groups, [tuple(t.shape) for t in told_apart((x, mask), groups, works)]

    groups, shapes = grown((4, 4, 4), (4, 4))
    assert groups == [((0, 0), (1, 1)), ((0, 1), (1, 0))]
    assert shapes == [(6, 8, 4), (8, 6)], "neither is the 4 that does not vary"
    assert grown((2, 5, 4), (5, 2))[1] == [(2, 5, 4), (5, 2)]


def test_a_sum_grows_with_either_part():
    def works(tensors):
        words, past, mask = (t.shape for t in tensors)
        return words[0] == past[0] == mask[0] and words[1] + past[1] == mask[1]

    x, past, mask = torch.ones(2, 3), torch.ones(2, 4), torch.ones(2, 7)
    assert varying((x, past, mask), works) == [((0, 0), (1, 0), (2, 0)), ((0, 1), (2, 1)), ((1, 1), (2, 1))]
    same = torch.ones(2, 2)
    assert varying((same, same, torch.ones(2, 4)), works)[1:] == [((0, 1), (2, 1)), ((1, 1), (2, 1))]
