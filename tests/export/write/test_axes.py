"""Which axes of a file vary: trying other sizes, names, and what a user says of them."""

import io

import pytest
import torch
from torch import nn

from export import check_parity, export_onnx
from export.write.axes import declared, other_sizes, with_sizes
from export.write.call import Call
from export.write.sizes import takes
from qat_core import QATConfig, prepare
from tests.export.models import Around

AUTO = torch.export.Dim.AUTO


class Cache(nn.Module):
    def forward(self, token, past):
        return token + sum(p.sum() for p in past)


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


def test_axes_are_said_as_torch_says_them():
    call = Call.of(Cache(), (torch.ones(2, 1), [torch.ones(2, 3), torch.ones(2, 4)]))
    assert declared(call, {"token": {0: "batch"}}) == ({0: "batch"}, None, None)
    assert declared(call, ({0: AUTO}, [{1: AUTO}, None])) == ({0: AUTO}, {1: AUTO}, None)
    assert declared(call, {"past": [(None, AUTO), {-1: AUTO}]}) == (None, {1: AUTO}, {1: AUTO})
    assert declared(call, {"token": {0: "batch"}, "of_none": None}) == ({0: "batch"}, None, None)
    for said, sentence in (
        ({"tokens": {}}, "names 'tokens'; expected some of token, past"),
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


class Attended(nn.Module):
    """Rows whose padding a mask hides: torch takes a batch of four and a length of four for the same."""

    def __init__(self):
        super().__init__()
        self.qkv, self.out = nn.Linear(4, 12), nn.Linear(4, 2)

    def forward(self, x, hidden):
        q, k, v = self.qkv(x).chunk(3, -1)
        scores = (q @ k.mT).masked_fill(hidden.view(x.shape[0], 1, x.shape[1]), -torch.inf)
        return self.out(scores.softmax(-1) @ v)


def test_a_batch_as_large_as_the_length_is_told_apart_from_it(tmp_path):
    torch.manual_seed(0)
    model, hidden = prepare(Attended()).eval(), torch.eye(7)[:4] > 0
    report = export_onnx(model, (torch.randn(4, 4, 4), hidden[:, :4]), tmp_path / "masked.onnx")
    assert report.axes == {"x": ("batch", "x_1", 4), "hidden": ("batch", "x_1")}
    assert check_parity(model, tmp_path / "masked.onnx", (torch.randn(3, 7, 4), hidden[:3])).ok


class Cached(nn.Module):
    """Words that look at those before them, which a mask covers, too."""

    def __init__(self):
        super().__init__()
        self.kv, self.out = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x, past, mask):
        seen = torch.cat([past, self.kv(x)], 1)
        scores = (x @ seen.mT).masked_fill(mask[:, None] == 0, -1e4)
        return self.out(scores.softmax(-1) @ seen), seen


def test_a_mask_is_as_long_as_the_cache_and_the_words(tmp_path):
    torch.manual_seed(0)
    model = prepare(Cached()).eval()
    report = export_onnx(
        model, (torch.randn(2, 3, 4), torch.randn(2, 5, 4), torch.ones(2, 8)), tmp_path / "cached.onnx"
    )
    assert all(isinstance(sizes[1], str) for sizes in report.axes.values())
    assert check_parity(
        model, tmp_path / "cached.onnx", (torch.randn(3, 1, 4), torch.randn(3, 9, 4), torch.ones(3, 10))
    ).ok


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


SINGLES = {
    "a word": (Around(lambda layer, x: layer(x)), torch.randn(2, 1, 4), ("batch", "x_1", 4)),
    "a word of one sentence": (Around(lambda layer, x: layer(x).cumsum(1)), torch.randn(1, 1, 4), ("batch", "x_1", 4)),
    "a row of points": (nn.Conv2d(1, 2, 3, padding=1), torch.randn(2, 1, 1, 6), ("batch", 1, "input_2", "input_3")),
    "left out": (Around(lambda layer, x: layer(x).squeeze(1)), torch.randn(2, 1, 4), ("batch", 1, 4)),
    "left where it is not one": (Around(lambda layer, x: layer(x).squeeze(0)), torch.randn(1, 3, 4), (1, "x_1", 4)),
}


@pytest.mark.parametrize("name", SINGLES)
def test_an_axis_of_one_varies_where_the_graph_answers_the_example_as_well(name):
    model, x, axes = SINGLES[name]
    file = io.BytesIO()
    report = export_onnx(prepare(model).eval(), x, file, dynamic_shapes={"x": {1: AUTO}} if axes[0] == 1 else None)
    assert tuple(report.axes.values()) == (axes,)


def test_an_axis_that_varies_is_not_left_out():
    file = io.BytesIO()
    model = prepare(Around(lambda layer, x: layer(x).squeeze((0, 1)).relu())).eval()
    report = export_onnx(
        model, torch.randn(3, 5, 4), file, dynamic_shapes={"x": {1: torch.export.Dim("length", min=2)}}
    )
    assert report.axes == {"x": (3, "length", 4)}
