"""prepare and convert: the same architecture, the original untouched, the grid reached."""

import copy
import os
import threading
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from qat_core import QATConfig, QuantLinear, QuantSpec, calibrate, convert, plan, prepare, sensitivity
from qat_core.affine import dequantize, minmax_qparams, quantize


def make_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Sequential(nn.Linear(10, 3)))


def test_prepare_leaves_the_model_alone_and_quantizes_a_copy():
    model = make_model()
    before = copy.deepcopy(model.state_dict())
    prepared = prepare(model, QATConfig())
    assert [type(m) for m in (prepared[0], prepared[2][0])] == [QuantLinear, QuantLinear]
    assert type(model[0]) is nn.Linear
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert model[0].weight is not prepared[0].weight


def test_inplace_returns_the_same_module_with_the_same_parameters():
    model = make_model()
    weight = model[0].weight
    assert prepare(model, inplace=True) is model
    assert model[0].weight is weight


def test_a_single_layer_is_a_model():
    assert isinstance(prepare(nn.Linear(4, 2)), QuantLinear)
    layer = nn.Linear(4, 2)
    assert prepare(layer, inplace=True) is layer


class InAList(nn.Module):
    """Calls its layers through a list that is not a ModuleList."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
        self.order = [self.a, self.b]

    def forward(self, x):
        for layer in self.order:
            x = layer(x)
        return x


@pytest.mark.parametrize("inplace", [False, True])
def test_whoever_holds_a_layer_holds_the_quantized_one(inplace):
    model, x = InAList(), torch.randn(3, 4)
    expected = x
    with torch.no_grad():
        for layer in model.order:
            scale, _ = minmax_qparams(layer.weight, QuantSpec())
            on_grid = dequantize(quantize(layer.weight, scale, None, -8, 7), scale, None)
            expected = nn.functional.linear(expected, on_grid, layer.bias)
    prepared = prepare(model, inplace=inplace)
    assert prepared.order == [prepared.a, prepared.b]
    assert torch.equal(prepared(x), expected)


def test_what_is_refused_in_place_is_left_as_it_was():
    model = make_model()
    with torch.no_grad():
        model[2][0].weight[0, 0] = torch.nan
    with pytest.raises(ValueError, match="NaN"):
        prepare(model, inplace=True)
    assert type(model[0]) is nn.Linear


def pruned(layer):
    prune.l1_unstructured(layer, "weight", 0.5)


PARAMETRIZED = {
    "weight_norm": nn.utils.parametrizations.weight_norm,
    "spectral_norm": nn.utils.parametrizations.spectral_norm,
    "orthogonal": nn.utils.parametrizations.orthogonal,
    "older weight_norm": nn.utils.weight_norm,
    "older spectral_norm": nn.utils.spectral_norm,
    "pruning": pruned,
}


@pytest.mark.parametrize("how", PARAMETRIZED)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_what_computes_a_weight_may_come_after_prepare(how):
    """The computed weight is quantized, trained through, and made permanent by convert; the original is left alone."""
    torch.manual_seed(0)
    model = prepare(make_model())
    PARAMETRIZED[how](model[0])
    x = torch.randn(5, 6)
    model(x).square().mean().backward()  # the older ones leave the weight as a part of a graph
    model.eval()
    expected, weight = model(x), model[0].latent("weight").detach().clone()
    for _ in range(2):
        converted = convert(model)
        assert torch.equal(converted(x), expected)
        assert len(converted[0].weight[0].unique()) <= 16
        assert [name for name, _ in converted[0].named_parameters()] == ["bias", "weight"]
    assert torch.equal(model(x), expected)
    assert torch.equal(model[0].latent("weight"), weight)


class Keeps(nn.Module):
    """Keeps something that cannot be copied."""

    def __init__(self, what):
        super().__init__()
        self.fc, self.kept = nn.Linear(4, 2), what

    def forward(self, x):
        return self.fc(x)


UNCOPYABLE = {
    "lock": threading.Lock,
    "file": lambda: open(os.devnull),  # noqa: SIM115
    "generator": lambda: (i for i in range(3)),
    "module of Python": lambda: os,
}


@pytest.mark.parametrize("what", UNCOPYABLE)
def test_what_a_model_holds_and_cannot_be_copied_is_named(what):
    model = nn.Sequential(Keeps(UNCOPYABLE[what]()))
    prepared = prepare(model, inplace=True)
    message = r"Sequential cannot be copied: its attribute '0.kept': .*; expected a model that can"
    with pytest.raises(ValueError, match=message + "$"):
        convert(prepared)
    in_float = nn.Sequential(Keeps(model[0].kept))
    with pytest.raises(ValueError, match=message + "$"):
        sensitivity(in_float, lambda m: 0.0)
    with pytest.raises(ValueError, match=message + ", or inplace=True"):
        prepare(in_float)


@pytest.mark.parametrize("kept", ["alone", "in a list", "in an object"])
def test_results_that_a_model_has_kept_are_copied_without_their_history(kept):
    result = torch.ones(2, requires_grad=True) * 2
    keeps = {"alone": result, "in a list": {"all": [result]}, "in an object": SimpleNamespace(keys=(result,))}[kept]
    model = nn.Sequential(Keeps(keeps))
    for twin in (prepare(model), convert(prepare(model, inplace=True))):
        own = twin[0].kept
        own = own["all"][0] if kept == "in a list" else own.keys[0] if kept == "in an object" else own
        assert torch.equal(own, result)
        assert own is not result
        assert own.is_leaf
    assert result.grad_fn is not None


@pytest.mark.parametrize("compiled", [torch.jit.script, lambda model: torch.jit.trace(model, torch.randn(1, 6))])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_torch_jit_has_compiled_gets_a_sentence(compiled):
    with pytest.raises(ValueError, match=r"nothing to quantize .*: it is compiled by torch\.jit: prepare the module"):
        prepare(compiled(make_model()))
    assert "compiled by torch.jit" in str(plan(nn.Sequential(nn.Linear(6, 6), compiled(make_model()))))


@pytest.mark.parametrize("granularity", ["per_tensor", "per_channel", "per_group"])
@pytest.mark.parametrize("bits", [1.58, 2, 3, 4, 8])
def test_forward_is_the_fp32_forward_with_the_weights_on_the_grid(bits, granularity):
    spec = QuantSpec(bits=bits, granularity=granularity, group_size=2)
    model, x = make_model(), torch.randn(5, 6)
    prepared = prepare(model, QATConfig(spec))
    with torch.no_grad():
        for layer in (model[0], model[2][0]):
            groups = layer.weight.reshape(layer.weight.shape[0], -1, 2) if granularity == "per_group" else layer.weight
            scale, _ = minmax_qparams(groups, spec)
            on_grid = dequantize(quantize(groups, scale, None, spec.quant_min, spec.quant_max), scale, None)
            layer.weight.copy_(on_grid.reshape(layer.weight.shape))
        assert torch.equal(prepared(x), model(x))


def test_an_fp32_checkpoint_loads_unchanged():
    prepared = prepare(make_model())
    assert prepared.load_state_dict(make_model().state_dict()).missing_keys == []


@pytest.mark.parametrize("granularity", ["per_tensor", "per_channel", "per_group"])
def test_convert_answers_the_same_and_its_weights_are_on_the_grid(granularity):
    spec = QuantSpec(granularity=granularity, group_size=2)
    prepared, x = prepare(make_model(), QATConfig(spec)), torch.randn(5, 6)
    converted = convert(prepared)
    assert torch.equal(converted(x), prepared(x))
    for layer in (converted[0], converted[2][0]):
        assert torch.equal(layer.weight_quantizer(layer.weight), layer.weight)
        assert layer.weight_quantizer.is_frozen
        assert layer.weight.unique().numel() <= 16 * layer.weight_quantizer.source.scale.numel()
    assert not any(p.requires_grad for p in converted.parameters())
    assert all(p.requires_grad for p in prepared.parameters())


@pytest.mark.parametrize(
    ("model", "config", "message"),
    [
        (nn.Sequential(nn.ReLU()), None, "nothing to quantize in Sequential.*expected one of Linear.*no parameters"),
        (nn.LayerNorm(3), None, "nothing to quantize in LayerNorm.*no quantized LayerNorm"),
        (nn.Linear(6, 2), QATConfig(overrides={"*": None}), r"left in float by override '\*'"),
        (make_model(), QATConfig(overrides={"head*": None}), r"override 'head\*' matches no layer; .* 0, 2.0"),
    ],
)
def test_what_cannot_be_prepared_gets_a_sentence(model, config, message):
    with pytest.raises(ValueError, match=message):
        prepare(model, config)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_by_name(value):
    model = make_model()
    with torch.no_grad():
        model[2][0].weight[1, 1] = value
    with pytest.raises(ValueError, match=r"layer '2.0' has 1 values that are NaN or infinite"):
        prepare(model)
    prepared = prepare(make_model())
    with torch.no_grad():
        prepared[2][0].weight[1, 1] = value
    with pytest.raises(ValueError, match=r"layer '2.0' has 1 values"):
        convert(prepared)


def test_preparing_twice_and_converting_what_was_not_prepared_are_refused():
    with pytest.raises(ValueError, match="prepared already"):
        prepare(prepare(make_model()))
    for act in (prepare, plan, convert, lambda model: calibrate(model, [])):
        with pytest.raises(ValueError, match=r"the model is a list; expected a torch.nn.Module"):
            act([nn.Linear(1, 1)])
    with pytest.raises(ValueError, match="was not prepared"):
        convert(make_model())
