"""Attention in a file answers as torch's, whatever a query may look at."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from export import check_parity, export_onnx
from export.read.runtime import run, session
from qat_core import prepare

N, HEADS, L, S, SIZE = 3, 4, 5, 7, 8
INF = float("inf")


class Attends(nn.Module):
    """A linear layer, and attention to keys and values that are given."""

    def __init__(self, **options):
        super().__init__()
        self.query, self.options = nn.Linear(SIZE, SIZE), options

    def forward(self, query, key, value, mask=None):
        return F.scaled_dot_product_attention(self.query(query), key, value, mask, **self.options)


def some(batch, length=L, sources=S, groups=HEADS):
    made = torch.Generator().manual_seed(batch)
    sizes = (HEADS, length), (groups, sources), (groups, sources)
    return tuple(torch.randn(batch, *size, SIZE, generator=made) for size in sizes)


def exported(tmp_path, model, example):
    torch.manual_seed(0)
    model = prepare(model).eval()
    assert export_onnx(model, example, tmp_path / "m.onnx").ok
    return model, tmp_path / "m.onnx"


def masks(batch):
    """What may be looked at, (batch, 1, L, S): two queries of the first sequence see nothing, and all of the last."""
    may = torch.rand(batch, 1, L, S, generator=torch.Generator().manual_seed(batch)) > 0.4
    may[0, 0, :2], may[-1] = False, False
    return may


def hidden(may, by):
    return torch.zeros(may.shape).masked_fill(~may, by)


@pytest.mark.parametrize("kind", ["bool", "-inf", "lowest", "slopes"])
def test_a_query_that_may_look_at_nothing_answers_as_in_torch(tmp_path, kind):
    as_kind = {
        "bool": lambda may: may,
        "-inf": lambda may: hidden(may, -INF),
        "lowest": lambda may: hidden(may, torch.finfo(torch.float32).min),
        "slopes": lambda may: hidden(may, -INF) - torch.arange(S) / 9,
    }[kind]
    model, path = exported(tmp_path, Attends(), (*some(N), as_kind(masks(N))))
    for batch in (2, 5):
        inputs = (*some(batch), as_kind(masks(batch)))
        check_parity(model, path, inputs).raise_if_broken()
        (y,) = run(session(path), [x.numpy() for x in inputs])
        expected = model(*inputs)
        torch.testing.assert_close(torch.from_numpy(y), expected, rtol=1e-5, atol=1e-5)
        if kind != "lowest":
            assert expected[-1].eq(0).all()


@pytest.mark.parametrize(
    ("options", "sizes"),
    [
        ({"is_causal": True}, {}),
        ({"is_causal": True}, {"length": 6, "sources": 3}),
        ({"scale": 0.3}, {}),
        ({"scale": -0.3}, {}),
        ({"enable_gqa": True}, {"groups": 2}),
        ({"enable_gqa": True, "is_causal": True, "scale": 2.0}, {"groups": 1}),
    ],
    ids=str,
)
def test_every_option_means_what_it_means_in_torch(tmp_path, options, sizes):
    model, path = exported(tmp_path, Attends(**options), some(N, **sizes))
    inputs = some(2, **sizes)
    check_parity(model, path, inputs).raise_if_broken()
    (y,) = run(session(path), [x.numpy() for x in inputs])
    torch.testing.assert_close(torch.from_numpy(y), model(*inputs), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("axes", [2, 3, 5])
@pytest.mark.parametrize("is_causal", [False, True])
def test_attention_has_any_number_of_axes(tmp_path, axes, is_causal):
    def inputs(batch):
        return tuple(torch.randn(*(batch, 2, 3)[: axes - 2], length, SIZE) for length in (L, S, S))

    example = inputs(N)
    torch.manual_seed(0)
    model = prepare(Attends(is_causal=is_causal)).eval()
    assert export_onnx(model, example, tmp_path / "m.onnx", dynamic_batch=axes > 2).ok
    other = inputs(4)
    (y,) = run(session(tmp_path / "m.onnx"), [x.numpy() for x in other])
    torch.testing.assert_close(torch.from_numpy(y), model(*other), rtol=1e-5, atol=1e-5)
