"""plan says what prepare does, and why not."""

import copy
import re

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from qat_core import QATConfig, QuantSpec, plan, prepare
from qat_core.fold import fold_batch_norm
from qat_core.layers import quantized_layers


class Squared(nn.Linear):
    def forward(self, x):
        return super().forward(x) ** 2


class Standardized(nn.Conv2d):
    """Keeps forward, and replaces what forward calls."""

    def _conv_forward(self, x, weight, bias):
        return super()._conv_forward(x, weight - weight.mean(), bias)


class Probabilities:
    def probabilities(self, x):
        return self(x).softmax(-1)


class Head(nn.Linear, Probabilities):
    """Adds a method that the model around it calls."""


def doubled():
    layer = nn.Linear(2, 2)
    layer.forward = lambda x: 2 * nn.Linear.forward(layer, x)
    return layer


def kept_in_a_buffer():
    layer = nn.Linear(2, 2)
    weight = layer.weight.detach()
    del layer.weight
    layer.register_buffer("weight", weight)
    return layer


@torch.no_grad()  # else torch would refuse to copy it
def pruned():
    return prune.l1_unstructured(nn.Linear(2, 2), "weight", 0.5)


def recurrence_with_one_weight():
    layer = nn.LSTM(2, 2)
    layer.weight_hh_l0 = layer.weight_ih_l0
    return layer


def everything():
    """One of each obstacle, and two layers that can be quantized."""
    return nn.ModuleDict(
        {
            "good": nn.Linear(8, 4),
            "conv": nn.Conv2d(3, 8, 3),
            "norm": nn.LayerNorm(4),
            "squared": Squared(2, 2),
            "lazy": nn.LazyLinear(3),
            "normed": parametrizations.weight_norm(nn.Linear(2, 2)),
            "renormed": nn.Embedding(5, 2, max_norm=1.0),
            "attention": nn.MultiheadAttention(4, 2, kdim=3),
            "projected": nn.LSTM(4, 4, proj_size=2),
            "standardized": Standardized(2, 2, 1),
            "head": Head(2, 2),
            "patched": doubled(),
            "pruned": pruned(),
            "buffered": kept_in_a_buffer(),
            "one_weight": recurrence_with_one_weight(),
            "empty": nn.Linear(2, 0),
        }
    )


def test_what_stays_in_float_has_a_reason():
    layers = {layer.name: layer for layer in plan(everything()).layers}
    reasons = {
        "good": "",
        "conv": "",
        "norm": "no quantized LayerNorm",
        "squared": "replaces the forward of Linear",
        "lazy": "run one batch",
        "normed": "parametrized",
        "renormed": "max_norm",
        "attention": "kdim",
        "projected": "proj_size",
        "standardized": "Standardized adds to Conv2d or replaces: _conv_forward",
        "head": "Head adds to Linear or replaces: probabilities",
        "patched": "the forward of this Linear was replaced",
        "pruned": "'weight' is not a parameter",
        "buffered": "'weight' is not a parameter",
        "one_weight": "'weight_hh_l0' is not a parameter",
        "empty": "its weight has no elements",
    }
    for name, reason in reasons.items():
        assert reason in layers[name].reason, name
        assert bool(layers[name].reason) == bool(reason), name


def test_prepare_does_what_plan_says():
    planned = plan(everything())
    prepared = prepare(everything())
    assert [name for name, _ in quantized_layers(prepared)] == [layer.name for layer in planned.quantized]


@pytest.mark.parametrize("config", [QuantSpec(), {"weight": QuantSpec()}], ids=["spec", "dict"])
def test_what_is_no_config_is_refused(config):
    for function in (plan, prepare):
        with pytest.raises(ValueError, match=f"config={re.escape(repr(config))}; expected a QATConfig"):
            function(nn.Linear(2, 2), config)


def test_the_table_has_a_line_for_each_layer_and_a_total():
    config = QATConfig(QuantSpec(granularity="per_group", group_size=16), QuantSpec.activation(8))
    lines = str(plan(everything(), config)).splitlines()
    assert lines[0].split() == ["layer", "kind", "shape", "bits", "granularity", "bytes", "after"]
    (line,) = (line for line in lines if line.startswith("good "))
    assert line.split() == ["good", "Linear", "4", "x", "8", "W4", "A8", "per_group", "16", "144", "50"]
    assert lines[-1].startswith("total")


@pytest.mark.parametrize(
    ("spec", "after"),
    [
        (QuantSpec(bits=4, granularity="per_tensor"), 64 // 2 + 4 + 1),
        (QuantSpec(bits=4, granularity="per_channel"), 64 // 2 + 8 * 4 + 4),
        (QuantSpec(bits=2, granularity="per_group", group_size=3), 64 // 4 + 8 * 3 * 4 + 6),
        (QuantSpec(bits=8), 64 + 8 * 4 + 8),
        (QuantSpec(bits=3), 64 // 2 + 8 * 4 + 4),
        (QuantSpec(bits=1.58), 64 // 4 + 8 * 4 + 2),
    ],
    ids=str,
)
def test_bytes_before_and_after(spec, after):
    (layer,) = plan(nn.Linear(8, 8, bias=False), QATConfig(spec)).layers
    assert (layer.bytes_before, layer.bytes_after) == (256, after)


def test_overrides_give_mixed_precision_and_the_first_match_wins():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2))
    eight = QATConfig(QuantSpec(bits=8))
    config = QATConfig(overrides={"0": None, "[01]": eight, "3": QATConfig(QuantSpec(bits=2), QuantSpec.activation(8))})
    prepared = prepare(model, config)
    assert type(prepared[0]) is nn.Linear
    assert [prepared[i].weight_quantizer.spec.bits for i in (1, 2, 3)] == [8, 4, 2]
    assert [prepared[i].input_quantizer is None for i in (1, 2, 3)] == [True, True, False]


def test_an_override_that_matches_nothing_is_an_error():
    with pytest.raises(ValueError, match=r"override 'heads\*' matches no layer; expected a glob over 0, 1"):
        plan(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), QATConfig(overrides={"heads*": None}))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weight": 4}, "weight=4; expected a QuantSpec"),
        ({"activation": 8}, "activation=8; expected a QuantSpec"),
        ({"weight": QuantSpec(bits=8, dynamic=True)}, "weight has dynamic=True"),
        ({"activation": QuantSpec(granularity="per_group")}, "expected one scale, or dynamic=True"),
        ({"overrides": {"a": 4}}, "overrides has 'a': 4; expected a glob"),
    ],
)
def test_a_config_that_means_nothing_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        QATConfig(**arguments)


def test_dynamic_activations_leave_images_in_float_and_the_table_shows_it():
    config = QATConfig(activation=QuantSpec(bits=8, dynamic=True))
    conv, linear = plan(nn.ModuleList([nn.Conv2d(1, 1, 3), nn.Linear(2, 2)]), config).layers
    assert conv.input_spec is None
    assert linear.input_spec.dynamic


def test_batch_norm_is_folded_where_it_follows_a_layer():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.LazyLinear(4))
    model.append(nn.BatchNorm1d(4))
    for _ in range(5):
        model(torch.randn(16, 3, 6, 6) * 3 + 1)
    model.eval()
    x = torch.randn(2, 3, 6, 6)
    expected = model(x)
    folded = prepare(model, QATConfig(QuantSpec(bits=8)), fold=True)
    assert not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in folded.modules())
    assert folded[0].bias is not None
    assert (folded(x) - expected).abs().max() < 0.05 * expected.abs().max()
    kept = prepare(model, QATConfig(QuantSpec(bits=8)))
    assert isinstance(kept[1], nn.BatchNorm2d)


def test_a_batch_norm_with_another_reader_between_is_not_folded():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv1d(2, 2, 1), nn.BatchNorm1d(2)

        def forward(self, x):
            y = self.conv(x)
            return self.norm(y) + y

    assert isinstance(prepare(Shared(), fold=True).norm, nn.BatchNorm1d)


def batch_norm(channels):
    norm = nn.BatchNorm2d(channels)
    with torch.no_grad():
        norm.running_mean.normal_(), norm.running_var.uniform_(0.5, 2), norm.weight.normal_(), norm.bias.normal_()
    return norm


class Around(nn.Module):
    """A convolution and a BatchNorm, called by a function."""

    def __init__(self, call, conv=None, norm=None):
        super().__init__()
        self.conv, self.norm, self.call = conv or nn.Conv2d(4, 4, 1), norm or batch_norm(4), call

    def forward(self, x):
        return self.call(self, x)


class Weighted(nn.Conv2d):
    def _conv_forward(self, x, weight, bias):
        return super()._conv_forward(x, weight / weight.norm(), bias)


class Rectified(nn.BatchNorm2d):
    def _check_input_dim(self, x):
        pass

    def forward(self, x):
        return nn.functional.batch_norm(x, self.running_mean, self.running_var).relu()


def hooked():
    conv = nn.Conv2d(4, 4, 1)
    conv.register_forward_hook(lambda module, inputs, output: 2 * output)
    return conv


FOLDS = {
    "by keyword": (Around(lambda m, x: m.norm(input=m.conv(x))), True),
    "norm called twice": (Around(lambda m, x: m.norm(m.norm(m.conv(x)).relu())), False),
    "weight read elsewhere": (
        Around(lambda m, x: m.norm(m.conv(x)) + nn.functional.conv2d(x, m.conv.weight)),
        False,
    ),
    "grouped transposed": (Around(lambda m, x: m.norm(m.conv(x)), nn.ConvTranspose2d(4, 4, 2, groups=4)), False),
    "another convolution": (Around(lambda m, x: m.norm(m.conv(x)), Weighted(4, 4, 1)), False),
    "another norm": (Around(lambda m, x: m.norm(m.conv(x)), norm=Rectified(4)), False),
    "hook": (Around(lambda m, x: m.norm(m.conv(x)), hooked()), False),
    "parametrized": (
        Around(lambda m, x: m.norm(m.conv(x)), parametrizations.weight_norm(nn.Conv2d(4, 4, 1))),
        False,
    ),
}


@pytest.mark.parametrize("name", FOLDS)
def test_folding_changes_no_answer(name):
    model, folds = FOLDS[name]
    x = torch.randn(2, 4, 3, 3)
    folded = fold_batch_norm(copy.deepcopy(model).eval())
    torch.testing.assert_close(folded(x), model.eval()(x))
    assert isinstance(folded.norm, nn.Identity) == folds
