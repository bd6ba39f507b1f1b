"""Folding leaves what learns, who holds a layer and every answer as they were, or it says that it cannot."""

import copy

import pytest
import torch
from torch import nn

from qat_core import QATConfig, QuantSpec, prepare
from qat_core.fold import fold_batch_norm

EIGHT = QATConfig(QuantSpec(bits=8))


def seen(model, x):
    """In eval mode, with running statistics that are not those of the beginning."""
    for _ in range(3):
        model(x * 2 + 1)
    return model.eval()


PAIRS = {
    "conv": lambda bias: (nn.Conv2d(3, 4, 3, bias=bias), nn.BatchNorm2d(4), torch.randn(8, 3, 6, 6)),
    "depthwise": lambda bias: (nn.Conv2d(4, 4, 3, groups=4, bias=bias), nn.BatchNorm2d(4), torch.randn(8, 4, 6, 6)),
    "transposed": lambda bias: (nn.ConvTranspose1d(3, 4, 3, bias=bias), nn.BatchNorm1d(4), torch.randn(8, 3, 6)),
    "volume": lambda bias: (nn.Conv3d(1, 2, 2, bias=bias), nn.BatchNorm3d(2), torch.randn(4, 1, 3, 3, 3)),
    "linear": lambda bias: (nn.Linear(6, 4, bias=bias), nn.BatchNorm1d(4), torch.randn(8, 6)),
}


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("pair", PAIRS)
def test_weight_and_bias_learn_after_folding(pair, bias, affine):
    torch.manual_seed(0)
    layer, norm, x = PAIRS[pair](bias)
    if not affine:
        norm = type(norm)(norm.num_features, affine=False)
    net = seen(nn.Sequential(layer, norm), x)
    folded = prepare(net, EIGHT, fold=True)
    assert isinstance(folded[1], nn.Identity)
    folded(x).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in (folded[0].weight, folded[0].bias))


@pytest.mark.parametrize("pair", PAIRS)
def test_a_layer_that_ends_a_row_of_modules_is_folded(pair):
    torch.manual_seed(0)
    layer, norm, x = PAIRS[pair](True)
    net = seen(nn.Sequential(nn.Sequential(nn.Identity(), nn.Sequential(layer)), nn.Sequential(norm, nn.ReLU())), x)
    folded = fold_batch_norm(copy.deepcopy(net))
    assert isinstance(folded[1][0], nn.Identity)
    torch.testing.assert_close(folded(x), net(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("frozen", "learns"),
    [(("0", "1"), (False, False)), (("0",), (True, True)), (("1",), (True, True)), (("0.bias", "1"), (True, False))],
    ids=str,
)
def test_what_is_frozen_stays_frozen(frozen, learns):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(not name.startswith(frozen))
    folded = fold_batch_norm(net.eval())
    assert (folded[0].weight.requires_grad, folded[0].bias.requires_grad) == learns


class Looped(nn.Module):
    """Calls its layers through whatever `keep` makes of them."""

    def __init__(self, keep, *layers):
        super().__init__()
        self.layers, self.order = nn.ModuleList(layers), keep(layers)

    def forward(self, x):
        for layer in self.order.values() if isinstance(self.order, dict) else self.order:
            x = layer(x)
        return x


@pytest.mark.parametrize("inplace", [True, False])
@pytest.mark.parametrize("keep", [list, tuple, lambda layers: dict(enumerate(layers))], ids=["list", "tuple", "dict"])
def test_whoever_holds_a_layer_holds_the_folded_one(keep, inplace):
    torch.manual_seed(0)
    layers, x = (nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 3)), torch.randn(8, 3, 8, 8)
    net = seen(nn.Sequential(*layers), x)
    expected = prepare(net, EIGHT, fold=True)(x)
    assert torch.equal(prepare(Looped(keep, *layers).eval(), EIGHT, fold=True, inplace=inplace)(x), expected)


def test_a_norm_that_is_synchronised_between_processes_is_folded():
    torch.manual_seed(0)
    x = torch.randn(8, 3, 9, 9)
    net = seen(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 3)), x)
    folded = prepare(nn.SyncBatchNorm.convert_sync_batchnorm(net), EIGHT, fold=True)
    assert torch.equal(folded(x), prepare(net, EIGHT, fold=True)(x))


@pytest.mark.parametrize("features", [16, 8])
@pytest.mark.parametrize("kind", [nn.BatchNorm1d, nn.SyncBatchNorm])
def test_a_norm_over_the_positions_of_a_sequence_is_not_folded_silently(kind, features):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, features), kind(16), nn.ReLU(), nn.Linear(features, 2)).eval()
    x = torch.randn(32, 16, 4)
    folded = prepare(net, EIGHT, fold=True)
    if features != 16:  # it can be seen from the layers
        assert type(folded[1]) is kind
        assert (folded(x) - net(x)).norm() < 0.05 * net(x).norm()
        return
    with pytest.raises(
        ValueError, match=r"normalizes \(32, 16, 16\) cannot be folded .* expected 2 dimensions, or fold"
    ):
        folded(x)


def test_a_layer_that_shares_its_weight_keeps_its_norm():
    first, second = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
    second.weight = first.weight
    folded = prepare(nn.Sequential(first, nn.BatchNorm2d(3), second).eval(), EIGHT, fold=True)
    assert folded[0].weight is folded[2].weight
    assert isinstance(folded[1], nn.BatchNorm2d)


def not_finite(net):
    with torch.no_grad():
        net[3].weight[0, 0] = torch.nan
    return EIGHT


REFUSED = {
    "matches no layer": lambda net: QATConfig(overrides={"no_such_layer": None}),
    "nothing to quantize": lambda net: QATConfig(overrides={"*": None}),
    "NaN or infinite": not_finite,
    "expected a QATConfig": lambda net: QuantSpec(),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_is_refused_in_place_keeps_its_norms(message):
    torch.manual_seed(0)
    x = torch.randn(4, 3, 6, 6)
    net = seen(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 3)), x)
    config = REFUSED[message](net)
    before, answer = dict(net.named_parameters()), net(x)
    with pytest.raises(ValueError, match=message):
        prepare(net, config, fold=True, inplace=True)
    assert [type(module) for module in net] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.Conv2d]
    after = dict(net.named_parameters())
    assert before.keys() == after.keys()
    assert all(before[name] is after[name] for name in before)
    torch.testing.assert_close(net(x), answer, rtol=0, atol=0, equal_nan=True)


class BatchNormAct2d(nn.BatchNorm2d):
    """As timm has it."""

    def __init__(self, channels):
        super().__init__(channels)
        self.drop, self.act = nn.Identity(), nn.Hardswish()

    def forward(self, x):
        return self.act(self.drop(super().forward(x)))


@pytest.mark.parametrize("wrap", [lambda m: m, nn.DataParallel, lambda m: torch.compile(m, backend="eager")])
@pytest.mark.parametrize("norm", [nn.BatchNorm2d, BatchNormAct2d])
def test_norms_of_timm_and_inside_of_wrappers_are_folded(norm, wrap):
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Conv2d(3, 4, 3), norm(4), nn.Conv2d(4, 2, 1)), torch.randn(4, 3, 6, 6)
    model(x)
    expected = model.eval()(x)
    folded = fold_batch_norm(wrap(copy.deepcopy(model)))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    torch.testing.assert_close(folded(x), expected)


def test_a_norm_of_the_users_own_is_not_folded():
    class Doubled(nn.BatchNorm2d):
        def forward(self, x):
            return 2 * super().forward(x)

    model, x = nn.Sequential(nn.Conv2d(3, 4, 3), Doubled(4)).eval(), torch.randn(2, 3, 6, 6)
    torch.testing.assert_close(fold_batch_norm(copy.deepcopy(model))(x), model(x))


class Standardized(nn.Conv2d):
    """Has a forward of its own."""

    def forward(self, x):
        return self._conv_forward(x, self.weight / self.weight.std(), self.bias)


class Choosy(nn.Module):
    """What torch.fx cannot follow, beside what is to be folded."""

    def __init__(self, conv):
        super().__init__()
        self.stem, self.rest = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), Branches(conv)

    def forward(self, x):
        return self.rest(self.stem(x))


class Branches(nn.Module):
    def __init__(self, conv):
        super().__init__()
        self.conv = conv

    def forward(self, x):
        return self.conv(x) if x.sum() > 0 else -self.conv(x)


def test_only_what_has_a_norm_inside_has_to_be_followed():
    torch.manual_seed(0)
    conv, x = nn.Conv2d(4, 4, 1), torch.randn(4, 3, 6, 6)
    model = seen(Choosy(conv), x)
    folded = fold_batch_norm(copy.deepcopy(model))
    assert isinstance(folded.stem[1], nn.Identity)
    torch.testing.assert_close(folded(x), model(x))


def test_layers_with_a_forward_of_their_own_or_called_where_nobody_looks_are_not_folded():
    torch.manual_seed(0)
    x = torch.randn(4, 3, 6, 6)
    model = seen(nn.Sequential(Standardized(3, 4, 3), nn.BatchNorm2d(4)), x)
    torch.testing.assert_close(fold_batch_norm(copy.deepcopy(model))(x), model(x))
    conv, x = nn.Conv2d(4, 4, 1), torch.randn(4, 4, 6, 6)
    model = seen(nn.Sequential(Branches(conv), conv, nn.BatchNorm2d(4)), x)
    torch.testing.assert_close(fold_batch_norm(copy.deepcopy(model))(x), model(x))


def test_a_norm_without_weights_is_folded_into_a_linear_layer():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, affine=False))
    model(torch.randn(64, 3) + 1)
    x = torch.randn(5, 3)
    folded = fold_batch_norm(copy.deepcopy(model).eval())
    torch.testing.assert_close(folded(x), model.eval()(x))
    assert isinstance(folded[1], nn.Identity)


def test_folding_what_cannot_be_traced_says_so():
    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.norm = nn.Linear(2, 2), nn.BatchNorm1d(2)

        def forward(self, x):
            return self.norm(self.linear(x)) if x.sum() > 0 else x

    with pytest.raises(ValueError, match="fold=True cannot follow the forward of Branching"):
        prepare(Branching(), fold=True)
