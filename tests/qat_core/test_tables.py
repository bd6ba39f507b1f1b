"""Rows that are looked up against the whole table on its grid: the same bits, in numbers and in every gradient."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from qat_core import QATConfig, QuantSpec, convert, prepare

ROWS, WIDTH, PAD = 50, 8, 3
WORDS = {
    "few, some twice": torch.tensor([[4, 9, 4, 3], [9, 4, 49, 3]]),
    "short numbers": torch.tensor([7, 7, 1], dtype=torch.int32),
    "none": torch.zeros(2, 0, dtype=torch.long),
    "one": torch.tensor(PAD),
    "more than rows": torch.arange(ROWS).repeat(3),
}
SPECS = [
    QuantSpec(),
    QuantSpec(3, symmetric=False),
    QuantSpec(2, "per_group", group_size=3, half_shift=True),
    QuantSpec(8, power_of_two=True),
    QuantSpec(4, "per_tensor"),
    QuantSpec(4, scale="mse"),
    QuantSpec(4, "per_group", scale="mse", group_size=4, symmetric=False),
    QuantSpec(4, scale="learned"),
    QuantSpec(3, "per_group", scale="learned", group_size=3, symmetric=False),
    QuantSpec(2, scale="learned", half_shift=True, power_of_two=True),
]


def whole(table: nn.Embedding, words: torch.Tensor) -> torch.Tensor:
    on_grid = table.weight_quantizer(table.weight)
    return F.embedding(words, on_grid, table.padding_idx, scale_grad_by_freq=table.scale_grad_by_freq)


def trained(table: nn.Module, answer, words: torch.Tensor, steps: int) -> list[torch.Tensor]:
    """Every answer and, in the end, every gradient and number."""
    adam, seen = torch.optim.Adam(table.parameters(), 0.05), []
    for _ in range(steps):
        y = answer(table, words)
        adam.zero_grad()
        (y * torch.linspace(-1, 1, y.numel()).reshape(y.shape)).sum().backward()
        adam.step()
        seen.append(y.detach())
    return [*seen, *(p.grad for p in table.parameters() if p.grad is not None), *table.state_dict().values()]


@pytest.mark.parametrize("words", WORDS.values(), ids=WORDS)
@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_training_goes_on_in_the_same_bits(spec, words):
    torch.manual_seed(0)
    table = prepare(nn.Embedding(ROWS, WIDTH, padding_idx=PAD), QATConfig(spec))
    found = trained(copy.deepcopy(table), nn.Module.__call__, words, steps=20)
    expected = trained(table, whole, words, steps=20)
    assert len(found) == len(expected)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("spec", [spec for spec in SPECS if spec.granularity != "per_tensor"], ids=str)
def test_only_the_rows_looked_up_are_quantized(spec, monkeypatch):
    table, words = prepare(nn.Embedding(ROWS, WIDTH), QATConfig(spec)), WORDS["few, some twice"]
    taken = []
    monkeypatch.setattr(table.weight_quantizer, "_estimate", lambda x, scale, _: taken.append(len(x)) or x * scale)
    table(words)
    assert taken == [words.numel()]


def test_gradients_by_frequency_and_in_half_precision():
    words = WORDS["few, some twice"]
    for float_table in (nn.Embedding(ROWS, WIDTH, scale_grad_by_freq=True), nn.Embedding(ROWS, WIDTH).bfloat16()):
        table = prepare(float_table, QATConfig(QuantSpec(scale="learned")))
        found, expected = trained(copy.deepcopy(table), nn.Module.__call__, words, 3), trained(table, whole, words, 3)
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_a_converted_table_looks_up_its_own_numbers(spec):
    table = convert(prepare(nn.Embedding(ROWS, WIDTH), QATConfig(spec)))
    assert torch.equal(table(WORDS["few, some twice"]), F.embedding(WORDS["few, some twice"], table.weight))


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize("padding", [None, PAD])
def test_bags_are_of_the_rows_looked_up(mode, padding):
    words = WORDS["few, some twice"]
    float_table = nn.EmbeddingBag(ROWS, WIDTH, mode=mode, padding_idx=padding)
    table = prepare(float_table, QATConfig(QuantSpec(scale="learned")))
    y = table(words)
    y.square().sum().backward()
    found = [p.grad.clone() for p in table.parameters()]
    table.zero_grad()
    on_grid = table.weight_quantizer(table.weight)
    expected = F.embedding_bag(words, on_grid, mode=mode, padding_idx=padding)
    expected.square().sum().backward()
    assert torch.equal(y, expected)
    assert all(torch.equal(a, p.grad) for a, p in zip(found, table.parameters(), strict=True))


def test_what_torch_func_transforms_and_what_is_compiled_looks_rows_up_as_well():
    table, words = prepare(nn.Embedding(ROWS, WIDTH), QATConfig(QuantSpec(scale="learned"))), WORDS["few, some twice"]
    one_by_one = torch.stack([table(row) for row in words])
    assert torch.equal(torch.vmap(table)(words), one_by_one)
    assert torch.equal(torch.compile(table, backend="eager", fullgraph=True)(words), one_by_one)
