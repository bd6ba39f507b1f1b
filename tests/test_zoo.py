"""Ten architectures of torch alone go through in one call, and are tried on a batch of another size and length."""

import pytest
import torch

from benchmarks.zoo import ROOMS, table
from benchmarks.zoo.of_torch import ZOO
from benchmarks.zoo.one import WIDTHS, ours

QUICKEST = [
    "perceptron",
    "generator",
    "temporal convolutions",
    "LSTM",
    "GRU",
    "attention",
    "TransformerEncoder",
    "mixture of experts",
    "state space",
    "recommender",
]


@pytest.mark.parametrize("name", QUICKEST)
def test_an_architecture_goes_through(name):
    torch.manual_seed(0)
    architecture = ZOO["of torch"][name]
    unseen = [architecture.inputs(*architecture.unseen)]
    row = ours(architecture.build(), architecture.inputs(*architecture.seen), unseen, WIDTHS["W4A8"])
    assert row["outcome"] in ("exact", "rounding")
    assert row["in_float"] == []
    assert all("batch" in axes for axes in row["axes"].values())


def test_the_page_has_every_architecture_and_every_reason():
    rows = {"W4": {"outcome": "exact"}, "W4A8": {"refused": "it is | too large"}, "torch": {"outcome": "exported"}}
    text = table.page({next(iter(ROOMS)): {"some model": rows}})
    assert "| some model | exact | refused |  | exported |" in text
    assert "- some model: it is | too large (W4A8)" in text
    assert "0 of 1 go through" in text
