"""Matrices of several experts kept in one parameter: each on a grid of its own, whoever multiplies by them and how."""

import copy
import io

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from qat_core import QATConfig, QuantSpec, Schedule, convert, plan, prepare
from qat_core.experts import QuantExperts
from qat_core.layers import quantized_layers
from qat_core.oscillations import Oscillations

EXPERTS, WIDTH, INSIDE = 4, 6, 10


class Experts(nn.Module):
    """As transformers keeps them: (experts, out, in)."""

    is_transposed = False

    def __init__(self):
        super().__init__()
        self.gate_up_proj = nn.Parameter(torch.randn(EXPERTS, 2 * INSIDE, WIDTH) / 3)
        self.down_proj = nn.Parameter(torch.randn(EXPERTS, WIDTH, INSIDE) / 3)
        self.down_bias = nn.Parameter(torch.randn(EXPERTS, WIDTH) / 3)

    def forward(self, x, chosen):
        y = torch.zeros_like(x)
        for expert in range(EXPERTS):
            rows = chosen == expert
            gate, up = F.linear(x[rows], self.gate_up_proj[expert]).chunk(2, -1)
            y[rows] = F.linear(F.silu(gate) * up, self.down_proj[expert], self.down_bias[expert])
        return y


class TransposedMoE(nn.Module):
    """(experts, in, out), all experts at once."""

    is_transposed = True

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.randn(EXPERTS, WIDTH, WIDTH) / 3)

    def forward(self, x, chosen):
        return torch.einsum("bi,eio->ebo", x, self.w)[chosen, torch.arange(len(x))]


class Block(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.router, self.experts = nn.Linear(WIDTH, EXPERTS), kind()

    def forward(self, x):
        scores = self.router(x)
        return self.experts(x, scores.argmax(-1)) * scores.softmax(-1).amax(-1, keepdim=True)


KINDS = [Experts, TransposedMoE]
SPECS = [QuantSpec(4), QuantSpec(2, scale="mse"), QuantSpec(8, symmetric=False), QuantSpec(1.58)]
X = torch.randn(32, WIDTH, generator=torch.Generator().manual_seed(0))


def made(kind, seed=0):
    torch.manual_seed(seed)
    return Block(kind)


def matrices(experts):
    """Each expert's matrices as (out, in), by the name of their parameter."""
    stacks = {name: p.detach() for name, p in experts.named_parameters() if p.dim() == 3}
    return {
        name: [m.T.contiguous() if experts.is_transposed else m for m in stack.unbind()]
        for name, stack in stacks.items()
    }


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_each_expert_has_the_codes_that_it_would_have_alone(kind, spec):
    model = made(kind)
    converted = convert(prepare(model, QATConfig(spec)))
    for name, alone in matrices(model.experts).items():
        for expert, matrix in enumerate(alone):
            linear = nn.Linear(*matrix.T.shape, bias=False)
            linear.weight.data = matrix
            expected = convert(prepare(linear, QATConfig(spec))).weight
            assert torch.equal(matrices(converted.experts)[name][expert], expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", ["minmax", "mse", "learned"])
@pytest.mark.parametrize("granularity", ["per_tensor", "per_channel", "per_group"])
def test_they_learn_and_convert_to_what_they_answered(kind, scale, granularity):
    spec = QuantSpec(4, granularity=granularity, group_size=5, scale=scale)
    model = prepare(made(kind), QATConfig(spec))
    stacks = {name: model.experts.latent(name).clone() for name in model.experts.weight_names()}
    adam, target = torch.optim.Adam(model.parameters(), 1e-2), X.flip(1)
    tracker = Oscillations(model)
    losses = []
    for _ in range(25):
        adam.zero_grad()
        loss = F.mse_loss(model(X), target)
        loss.backward()
        adam.step()
        tracker.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    assert all(not torch.equal(stack, model.experts.latent(name)) for name, stack in stacks.items())
    answers = model.eval()(X)
    assert torch.equal(convert(model)(X), answers)
    assert [row.name for row in tracker.report()] == ["router.weight", *(f"experts.{name}" for name in stacks)]


def test_a_stack_is_put_on_its_grid_once_a_call_and_for_readers_outside_as_well():
    model = prepare(made(Experts))
    calls, quantizer = [], model.experts.down_proj_quantizer
    quantizer.register_forward_hook(lambda *_: calls.append(1))
    model(X)
    assert len(calls) == 1

    class Reader(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = made(Experts)

        def forward(self, x):
            return self.inner(x), self.inner.experts.down_proj

    reader = prepare(Reader())
    _, seen = reader(X)
    assert torch.equal(seen, convert(reader).inner.experts.down_proj)
    with torch.no_grad():
        assert reader.inner.experts.down_proj is reader.inner.experts.latent("down_proj")


@pytest.mark.parametrize("kind", KINDS)
def test_copies_checkpoints_and_whole_models_answer_alike(kind):
    model = prepare(made(kind), QATConfig(QuantSpec(4, scale="learned")))
    Schedule(model)
    model(X).sum().backward()
    expected = model.eval()(X)
    other = prepare(made(kind, seed=1), QATConfig(QuantSpec(4, scale="learned"))).eval()
    other.load_state_dict(model.state_dict())
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for twin in (other, copy.deepcopy(model), torch.load(file, weights_only=False)):
        assert torch.equal(twin(X), expected)
        assert type(twin.experts) is type(model.experts)
        assert isinstance(twin.experts, (QuantExperts, kind))


def test_a_plan_counts_them_and_other_stacks_stay_in_float():
    planned = plan(made(Experts), batch=X)
    experts = next(layer for layer in planned.layers if layer.name == "experts")
    assert experts.config is not None
    assert experts.shapes == ((EXPERTS, 2 * INSIDE, WIDTH), (EXPERTS, WIDTH, INSIDE))
    numbers = EXPERTS * 3 * INSIDE * WIDTH
    scales = EXPERTS * (2 * INSIDE + WIDTH)
    assert experts.bytes_after == numbers // 2 + 4 * scales + scales // 2 + 4 * EXPERTS * WIDTH
    assert experts.multiplications == len(X) * 3 * INSIDE * WIDTH
    assert "experts" not in planned.products

    class Positions(TransposedMoE):
        pass

    float_model = made(Positions)
    assert [name for name, _ in quantized_layers(prepare(float_model))] == ["router"]
    assert "no quantized Positions" in str(plan(float_model))
    left = prepare(made(Experts), QATConfig(overrides={Experts: None}))
    assert type(left.experts) is Experts


def test_experts_may_hold_layers_of_their_own():
    class GatedMoE(TransposedMoE):
        def __init__(self):
            super().__init__()
            self.gate = nn.Linear(WIDTH, EXPERTS)

        def forward(self, x):
            return super().forward(x, self.gate(x).argmax(-1)) + self.gate(x).sum(-1, keepdim=True)

    torch.manual_seed(0)
    model = prepare(GatedMoE(), QATConfig(QuantSpec(4, scale="learned"), QuantSpec.activation()))
    assert [name for name, _ in quantized_layers(model)] == ["", "gate"]
    model(X).square().sum().backward()
    assert all(p.grad is not None for p in (model.latent("w"), model.gate.latent("weight")))
    answers = model.eval()(X)
    assert torch.equal(convert(model)(X), answers)
    assert torch.equal(copy.deepcopy(model)(X), answers)


def test_whole_graphs_are_compiled():
    torch.compiler.reset()
    model = prepare(made(TransposedMoE))
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    assert torch.equal(compiled(X), model(X))
