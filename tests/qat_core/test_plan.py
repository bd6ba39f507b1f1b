"""plan says what prepare does, and why not."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from qat_core import QATConfig, QuantSpec, plan, prepare
from qat_core.prepare import quantized_layers


class Squared(nn.Linear):
    def forward(self, x):
        return super().forward(x) ** 2


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
    }
    for name, reason in reasons.items():
        assert reason in layers[name].reason, name
        assert bool(layers[name].reason) == bool(reason), name


def test_prepare_does_what_plan_says():
    planned = plan(everything())
    prepared = prepare(everything())
    assert [name for name, _ in quantized_layers(prepared)] == [layer.name for layer in planned.quantized]


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


def test_folding_what_cannot_be_traced_says_so():
    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.norm = nn.Linear(2, 2), nn.BatchNorm1d(2)

        def forward(self, x):
            return self.norm(self.linear(x)) if x.sum() > 0 else x

    with pytest.raises(ValueError, match="fold=True cannot follow the forward of Branching"):
        prepare(Branching(), fold=True)
