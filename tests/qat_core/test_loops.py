"""The loops that people train in: recomputed, accumulated, scaled and mixed forward passes."""

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from qat_core import Oscillations, QATConfig, QuantSpec, Schedule, calibrate, convert, prepare
from qat_core.affine import mse_qparams
from qat_core.search import SEARCH_EVERY

SCALES = ("minmax", "mse", "learned")


def config(scale, bits=4):
    return QATConfig(QuantSpec(bits, scale=scale), QuantSpec.activation(bits, scale=scale))


class Shared(nn.Module):
    """One block, applied several times."""

    def __init__(self, run=lambda block, x: block(x)):
        super().__init__()
        self.block = nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 8))
        self.run = run

    def forward(self, x):
        for _ in range(3):
            x = x + self.run(self.block, x)
        return x


def recomputed(reentrant):
    return lambda block, x: checkpoint(block, x, use_reentrant=reentrant)


def assert_same(model, twin):
    for (name, ours), theirs in zip(model.named_parameters(), twin.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad), name
    for (name, ours), theirs in zip(model.state_dict().items(), twin.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), name


@pytest.mark.parametrize("batches", [1, 2])
@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("scale", SCALES)
def test_gradients_of_recomputed_blocks_are_bit_equal(scale, reentrant, batches):
    """Blocks that are used several times, and several forward passes before one backward pass."""
    torch.manual_seed(0)
    plain = prepare(Shared(), config(scale))
    saved = copy.deepcopy(plain)
    saved.run = recomputed(reentrant)
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.05) for model in (plain, saved)]
    for step in range(2 * SEARCH_EVERY):
        inputs = [torch.randn(16, 8) * (1 + step % 5) for _ in range(batches)]
        for model, optimizer in zip((plain, saved), optimizers, strict=True):
            optimizer.zero_grad()
            sum(model(x.clone().requires_grad_()).square().mean() for x in inputs).backward()
        assert_same(plain, saved)
        for optimizer in optimizers:
            optimizer.step()


def test_a_recomputed_model_that_is_one_segment_is_bit_equal_too():
    torch.manual_seed(0)
    plain = prepare(Shared(), config("minmax"))
    saved = copy.deepcopy(plain)
    for _ in range(4):
        x = torch.randn(16, 8)
        for model, y in ((plain, plain(x)), (saved, checkpoint(saved, x, use_reentrant=False))):
            model.zero_grad()
            y.square().mean().backward()
        assert_same(plain, saved)


@pytest.mark.parametrize("scale", SCALES)
def test_accumulated_gradients_are_the_sum_of_the_parts(scale):
    """On ranges that stay, two halves give the gradient of the whole but for the order of sums."""
    torch.manual_seed(0)
    model = prepare(nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 1)), config(scale, bits=8))
    x = torch.randn(32, 8)
    model(x)
    Schedule(model, freeze_observers_after=0)
    twin = copy.deepcopy(model)
    model(x).sum().backward()
    for part in x.split(16):
        twin(part).sum().backward()
    for name, whole in model.named_parameters():
        parts = twin.get_parameter(name).grad
        if "input_quantizer" not in name:  # a scale's gradient is divided by sqrt(N)
            torch.testing.assert_close(parts, whole.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scale", SCALES)
def test_autocast_and_a_gradient_scaler_train(scale):
    torch.manual_seed(0)
    model = prepare(nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 1)), config(scale, bits=8))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    losses = []
    for step in range(60):
        x = torch.randn(64, 4)
        target = x.sum(1, keepdim=True)
        if step in (0, 30):
            x[0, 0] = torch.nan
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = nn.functional.mse_loss(model(x).float(), target)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[1]
    assert all(bool(t.isfinite().all()) for t in model.state_dict().values())
    convert(model)


@pytest.mark.parametrize("scale", SCALES)
def test_an_infinite_input_does_not_spoil_a_learned_scale(scale):
    torch.manual_seed(0)
    model = prepare(nn.Linear(4, 2), config(scale))
    model(torch.randn(8, 4))
    x = torch.randn(8, 4)
    x[0, 0] = torch.inf
    model(x).sum().backward()
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters())


class Adapted(nn.Module):
    """LoRA: a frozen layer beside two small ones, the second of which begins at zero."""

    def __init__(self):
        super().__init__()
        self.base, self.a, self.b = nn.Linear(16, 16), nn.Linear(16, 4, bias=False), nn.Linear(4, 16, bias=False)
        nn.init.zeros_(self.b.weight)
        self.base.requires_grad_(False)

    def forward(self, x):
        return self.base(x) + self.b(self.a(x))


class ZeroHead(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(16, 32), nn.Linear(32, 16)
        nn.init.zeros_(self.head.weight)

    def forward(self, x):
        return self.head(torch.relu(self.body(x)))


class ZeroGate(nn.Module):
    """What follows a layer that begins at zero sees nothing but zeros at first."""

    def __init__(self):
        super().__init__()
        self.gate, self.head = nn.Linear(16, 32, bias=False), nn.Linear(32, 16)
        nn.init.zeros_(self.gate.weight)

    def forward(self, x):
        return self.head(self.gate(x))


@pytest.mark.parametrize("granularity", ["per_tensor", "per_channel", "per_group"])
@pytest.mark.parametrize("network", [Adapted, ZeroHead, ZeroGate])
def test_what_begins_at_zero_learns_with_learned_scales(network, granularity):
    """About as far as with min-max, whose scale follows the weights in any case."""
    losses = {}
    for scale in ("minmax", "learned"):
        torch.manual_seed(0)
        x = torch.randn(256, 16)
        target = x @ torch.randn(16, 2) @ torch.randn(2, 16) / 4
        weight = QuantSpec(4, granularity, group_size=4, scale=scale)
        model = prepare(network(), QATConfig(weight, QuantSpec.activation(8, scale=scale)))
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        for _ in range(200):
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(model(x), target)
            loss.backward()
            optimizer.step()
        losses[scale] = loss.item()
    assert losses["learned"] < max(0.02, 3 * losses["minmax"])
    assert losses["minmax"] < 0.4


def test_channels_of_zeros_have_a_scale_for_what_they_become_and_the_others_keep_theirs():
    layer = nn.Linear(64, 3)
    with torch.no_grad():
        layer.weight[1] = 0
    model = prepare(layer, QATConfig(QuantSpec(scale="learned")))
    fresh = model.weight_quantizer.source.qparams(model.weight)[0].detach().clone()
    assert not model.weight_quantizer(model.weight)[1].any()
    with torch.no_grad():
        model.weight[1] = torch.randn(64, generator=torch.Generator().manual_seed(0))
    error = model.weight_quantizer(model.weight)[1] - model.weight[1]
    after = model.weight_quantizer.source.qparams(model.weight)[0].detach()
    assert torch.equal(after[[0, 2]], fresh[[0, 2]])
    best, _ = mse_qparams(model.weight[1:2].detach(), QuantSpec())
    least = model.weight[1] - (model.weight[1] / best).round().clamp(-8, 7) * best
    assert error.square().mean() < 1.5 * least.square().mean()


@pytest.mark.parametrize("scale", SCALES)
def test_what_is_converted_has_the_codes_of_the_forward_pass(scale):
    torch.manual_seed(0)
    model = prepare(nn.Linear(16, 8), QATConfig(QuantSpec(3, scale=scale)))
    for _ in range(SEARCH_EVERY + 3):
        with torch.no_grad():
            model.weight.add_(0.02 * torch.randn_like(model.weight))
        model(torch.randn(4, 16))
    forward = model.weight_quantizer(model.weight)
    assert torch.equal(convert(model).weight, forward)
    assert torch.equal(model.eval().weight_quantizer(model.weight), forward)


@pytest.mark.parametrize("scale", SCALES)
def test_looking_moves_nothing(scale):
    model = prepare(nn.Linear(8, 4), QATConfig(QuantSpec(3, scale=scale)))
    model(torch.randn(4, 8))
    before = copy.deepcopy(model.state_dict())
    tracker = Oscillations(model)
    for _ in range(2 * SEARCH_EVERY):
        tracker.step()
        model.weight_quantizer.source.qparams(model.weight)
        convert(model)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("how", ["assign", "copy"])
def test_oscillations_are_those_of_the_parameters_that_the_model_has_now(how):
    torch.manual_seed(0)
    model = prepare(nn.Linear(8, 4), QATConfig(QuantSpec(2)))
    tracker = Oscillations(model, 0.02, momentum=0.5)
    model.load_state_dict(copy.deepcopy(model.state_dict()), assign=how == "assign")
    for _ in range(8):
        with torch.no_grad():
            model.weight.mul_(-1)
        tracker.step()
    assert tracker.report()[0].oscillating > 0.4


def test_parameters_that_an_earlier_optimizer_does_not_know_are_said():
    with pytest.warns(UserWarning, match=r"made 2 parameters, 0\.weight_quantizer\..* which an optimizer made before"):
        prepare(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), QATConfig(QuantSpec(scale="learned")), inplace=True)
    with pytest.warns(UserWarning, match=r"made 2 parameters, 0\.weight first"):
        prepare(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)), inplace=True, fold=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prepare(nn.Linear(2, 2), QATConfig(QuantSpec(scale="learned")))
        prepare(nn.Linear(2, 2), inplace=True)


@pytest.mark.parametrize("scale", ["minmax", "learned"])
def test_convert_says_that_quantization_is_off(scale):
    model = prepare(nn.Linear(4, 2), QATConfig(QuantSpec(2, scale=scale)))
    schedule = Schedule(model, quantize_after=10)
    with pytest.raises(ValueError, match="1 quantizers are switched off, weight_quantizer first"):
        convert(model)
    schedule.load_state_dict({"steps": 10})
    assert convert(model).weight[0].unique().numel() <= 4


@pytest.mark.parametrize("scale", SCALES)
def test_an_expert_without_data_has_a_gradient_of_zeros(scale):
    model = prepare(nn.Linear(4, 2), config(scale))
    model(torch.randn(8, 4))
    model(torch.empty(0, 4)).sum().backward()
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in model.parameters())


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        return torch.cond(x.sum() > 0, lambda x: self.up(x), lambda x: self.down(x), (x,))


def test_branches_train_once_their_ranges_are_held():
    torch.manual_seed(0)
    model, x = prepare(nn.Sequential(Branches(), nn.Linear(4, 2)), config("minmax", bits=8)), torch.rand(8, 4)
    with pytest.raises(RuntimeError) as raised:
        model(x)
    (note,) = raised.value.__notes__
    assert "they cannot in a branch of torch.cond: show data to its layers one by one" in note
    for layer, rows in ((model[0].up, x), (model[0].down, -x), (model[1], x)):
        calibrate(layer, [rows])
    Schedule(model, freeze_observers_after=0)
    model.train()
    for sign in (1, -1):
        model(sign * x).square().mean().backward()
    assert all(bool(p.grad.abs().sum() > 0) for p in model[0].parameters())
