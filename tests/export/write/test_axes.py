"""Which axes vary: enlarging an example, trying other sizes, and what a user says of them."""

import pytest
import torch
from torch import nn

from export import check_parity, export_onnx
from export.write.axes import declared, enlarged, may_vary, other_sizes, resized, takes, with_sizes
from export.write.call import Call
from qat_core import QATConfig, prepare

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
        (nn.Conv2d(1, 1, 3), (2, 1, 8, 8), {0: "b", 2: "h", 3: "w"}, [{"b": 3, "h": 12, "w": 12}]),
        (nn.Sequential(nn.Flatten(), nn.Linear(16, 1)), (2, 1, 4, 4), {0: "b", 2: "h", 3: "w"}, [{"b": 3}]),
        (nn.PixelUnshuffle(2), (2, 1, 4, 6), {0: "b", 2: "h", 3: "w"}, [{"b": 3, "h": 6, "w": 12}]),
        (nn.Unflatten(0, (3, 1)), (3, 2), {0: "b"}, []),
    ],
)
def test_sizes_are_tried_on_the_model(model, shape, symbols, found):
    call = Call.of(model, torch.randn(shape))
    sizes = other_sizes(call.tensors, (symbols,), takes(model))
    assert sizes == found
    for size in sizes:
        model(*with_sizes(call.tensors, (symbols,), size))


def axes_that_may_vary(model, *inputs):
    return [sorted(axes) for axes in may_vary(inputs, takes(model))]


def test_an_axis_may_vary_where_the_model_takes_another_size_along_it():
    class Masked(nn.Module):
        def forward(self, x, mask):
            return torch.softmax(x @ x.mT + mask, -1) @ x

    pooled = nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 2))
    assert axes_that_may_vary(nn.Linear(3, 2), torch.randn(5, 3)) == [[0]]
    assert axes_that_may_vary(nn.Linear(3, 2), torch.randn(3, 3)) == [[0]]
    assert axes_that_may_vary(nn.Conv2d(3, 4, 3), torch.randn(2, 3, 8, 8)) == [[0, 2, 3]]
    assert axes_that_may_vary(pooled, torch.randn(2, 3, 8, 8)) == [[0]], "8 and 9 fit, since the pooling drops an edge"
    assert axes_that_may_vary(nn.Bilinear(3, 3, 2), torch.randn(4, 3), torch.randn(4, 3)) == [[0], [0]]
    assert axes_that_may_vary(Masked(), torch.randn(5, 5, 4), torch.zeros(5, 5)) == [[0, 1, 2], [0, 1]]
    states = torch.randn(2, 2, 4)
    assert axes_that_may_vary(States(2), torch.randn(2, 5, 3), states, states) == [[0, 1], [1], [1]]


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


class Masked(nn.Module):
    """Looks its mask up in a table of rows, unless there is nothing to hide, as the encoders of transformers do."""

    def __init__(self):
        super().__init__()
        self.table, self.out = nn.Embedding(30, 8), nn.Linear(8, 4)

    def forward(self, ids, mask):
        x = self.table(ids)
        if torch.compiler.is_compiling() or not mask.all():
            x = x * mask[torch.arange(ids.shape[0])[:, None], torch.arange(ids.shape[1])[None]].unsqueeze(-1)
        return self.out(x).mean(1)


def test_axes_that_vary_together_have_one_name(tmp_path):
    """The example hides nothing, so that the model takes any mask; the graph, which looks it up, does not."""
    torch.manual_seed(0)
    model = prepare(Masked(), QATConfig()).eval()
    inputs = (torch.randint(0, 30, (2, 5)), torch.ones(2, 5, dtype=torch.int64))
    report = export_onnx(model, inputs, tmp_path / "masked.onnx")
    assert report.axes["ids"] == report.axes["mask"]
    mask = torch.ones(3, 7, dtype=torch.int64)
    mask[1, 4:] = 0
    assert check_parity(model, tmp_path / "masked.onnx", (torch.randint(0, 30, (3, 7)), mask)).ok


def test_an_axis_may_be_a_multiple_of_a_symbol_that_is_none(tmp_path):
    """N is a function of sympy's as well."""
    torch.manual_seed(0)
    model = prepare(nn.Conv1d(3, 8, 4, stride=4)).eval()
    shapes = ({0: torch.export.Dim("N", min=1, max=64), 2: 4 * torch.export.Dim("k", min=1, max=64)},)
    report = export_onnx(model, torch.randn(2, 3, 16), tmp_path / "patches.onnx", dynamic_shapes=shapes)
    assert report.axes == {"input": ("N", 3, "4*k")}
    assert check_parity(model, tmp_path / "patches.onnx", torch.randn(5, 3, 24)).ok


def test_a_model_of_single_numbers_has_no_batch(tmp_path):
    model = prepare(nn.Sequential(nn.Embedding(10, 8), nn.Linear(8, 4))).eval()
    assert export_onnx(model, torch.tensor(3), tmp_path / "word.onnx").axes == {"input": ()}


class Spectrum(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        return torch.fft.rfft(self.fc(x))


def test_complex_answers_get_a_sentence(tmp_path):
    with pytest.raises(ValueError, match=r"answers complex numbers, 'output'; expected real ones"):
        export_onnx(prepare(Spectrum()).eval(), torch.randn(2, 4), tmp_path / "spectrum.onnx")
