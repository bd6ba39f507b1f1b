"""Experts in a file: a scale for each output of each, and rows sorted by expert, each group by its own matrix."""

import onnx
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from export import audit, check_parity, export_onnx
from qat_core import QATConfig, QuantSpec, prepare

EXPERTS, WIDTH, INSIDE = 3, 16, 24
SPECS = (
    QuantSpec(4),
    QuantSpec(8, symmetric=False),
    QuantSpec(1.58),
    QuantSpec(4, "per_group", group_size=8),
    QuantSpec(3, "per_tensor"),
)


@torch.library.custom_op("transformers::grouped_mm_fallback", mutates_args=())
def grouped_mm(input: torch.Tensor, weight: torch.Tensor, offs: torch.Tensor) -> torch.Tensor:
    """As transformers registers it: rows up to each offset by that group's matrix."""
    starts = [0, *offs.tolist()]
    return torch.cat([input[a:b] @ matrix for a, b, matrix in zip(starts, starts[1:], weight, strict=False)])


@grouped_mm.register_fake
def _(input, weight, offs):
    return input.new_empty(input.shape[0], weight.shape[2])


class GroupedExperts(nn.Module):
    """Each row goes through one expert: rows are sorted by it, and a group multiplied at a time."""

    def __init__(self, is_transposed=False):
        super().__init__()
        shapes = (EXPERTS, INSIDE, WIDTH), (EXPERTS, WIDTH, INSIDE)
        self.is_transposed = is_transposed
        self.up, self.down = (
            nn.Parameter(torch.randn(s).mT.contiguous() if is_transposed else torch.randn(s)) for s in shapes
        )

    def forward(self, x, chosen):
        order = chosen.sort()[1]
        ends = (chosen[:, None] == torch.arange(EXPERTS)).sum(0).cumsum(0).int()
        up, down = (self.up, self.down) if self.is_transposed else (self.up.mT, self.down.mT)
        y = grouped_mm(grouped_mm(x[order], up, ends).relu(), down, ends)
        return torch.zeros_like(y).index_copy(0, order, y)


class BatchedExperts(GroupedExperts):
    """All experts see all rows."""

    def forward(self, x, chosen):
        up, down = (self.up, self.down) if self.is_transposed else (self.up.mT, self.down.mT)
        every = (x @ up).relu() @ down  # (experts, rows, width)
        return (every * F.one_hot(chosen, EXPERTS).T[..., None]).sum(0)


class Mixture(nn.Module):
    def __init__(self, kind, is_transposed):
        super().__init__()
        self.router, self.experts = nn.Linear(WIDTH, EXPERTS), kind(is_transposed)

    def forward(self, x):
        scores = self.router(x)
        return self.experts(x, scores.argmax(-1)) * scores.softmax(-1).amax(-1, keepdim=True)


def some(rows):
    return torch.randn(rows, WIDTH, generator=torch.Generator().manual_seed(rows))


@pytest.mark.parametrize(
    ("kind", "is_transposed", "spec"),
    [
        (kind, is_transposed, spec)
        for place, spec in enumerate(SPECS)
        for kind, is_transposed in ((GroupedExperts, bool(place % 2)), (BatchedExperts, not place % 2))
    ],
    ids=str,
)
def test_the_file_answers_for_any_number_of_rows(tmp_path, kind, is_transposed, spec):
    torch.manual_seed(0)
    model = prepare(Mixture(kind, is_transposed), QATConfig(spec)).eval()
    path = tmp_path / "experts.onnx"
    export_onnx(model, some(12), path)
    stored = {row.name: row for row in audit(path).rows}
    assert {"experts.up", "experts.down"} <= stored.keys()
    assert stored["experts.up"].bytes == EXPERTS * WIDTH * INSIDE * spec.storage_bits // 8
    assert [x.name for x in onnx.load(path).graph.input] == ["x"]
    for rows in (1, 2, 40):  # of one row two experts have nothing to do
        check_parity(model, path, some(rows)).raise_if_broken()


def test_experts_and_recurrent_layers_alone_keep_the_names_of_their_arguments(tmp_path):
    examples = {
        ("x", "chosen"): (BatchedExperts(), (some(6), torch.arange(6) % EXPERTS)),
        ("input", "hx"): (nn.GRU(4, 6, batch_first=True), (torch.randn(3, 5, 4), torch.randn(1, 3, 6))),
    }
    for names, (model, example) in examples.items():
        assert export_onnx(prepare(model).eval(), example, tmp_path / "alone.onnx").ok
        assert tuple(x.name for x in onnx.load(tmp_path / "alone.onnx").graph.input) == names
