"""A weight is on its grid for whoever reads it in a forward pass, and a parameter for whoever trains it."""

import copy
import gc
import weakref

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune
from torch.utils.checkpoint import checkpoint

from qat_core import QATConfig, QuantSpec, convert, plan, prepare
from qat_core.affine import dequantize, minmax_qparams, quantize
from qat_core.layers import quantized_layers

THREE = QATConfig(QuantSpec(bits=3))
WORDS, ROWS, IMAGE = torch.randint(0, 11, (4, 6)), torch.randn(5, 4), torch.randn(2, 3, 6, 6)


class Reads(nn.Module):
    """Calls its layers, or reads them, as `call` says."""

    def __init__(self, call, **layers):
        super().__init__()
        self.call = call
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x):
        return self.call(self, x)


class Head(nn.Module):
    """Reads the table of another module, which is no part of it."""

    def __init__(self, table):
        super().__init__()
        self.table = [table]

    def forward(self, h):
        return h @ self.table[0].weight.T


def with_head():
    table = nn.Embedding(11, 8)
    return Reads(lambda m, x: m.head(m.wte(x)), wte=table, head=Head(table))


def words(call):
    return Reads(call, wte=nn.Embedding(11, 8), fc=nn.Linear(8, 8))


def rows(call):
    return Reads(call, fc=nn.Linear(4, 3))


READERS = {
    "tied by hand": (words(lambda m, x: F.linear(m.fc(m.wte(x)), m.wte.weight)), WORDS),
    "in a checkpoint": (
        words(lambda m, x: F.linear(checkpoint(m.fc, m.wte(x), use_reentrant=False), m.wte.weight)),
        WORDS,
    ),
    "by another module": (with_head(), WORDS),
    "never called": (words(lambda m, x: F.embedding(x, m.wte.weight) @ m.fc.weight), WORDS),
    "asked for by name": (rows(lambda m, x: F.linear(m.fc(x), m.get_parameter("fc.weight").T)), ROWS),
    "a recurrence's by name": (
        Reads(lambda m, x: m.r(x)[0].sum() + m.r.get_parameter("weight_ih_l0").sum(), r=nn.GRU(4, 4)),
        torch.randn(3, 2, 4),
    ),
    "returned": (rows(lambda m, x: (m.fc(x), m.fc.weight)), ROWS),
    "times 1": (rows(lambda m, x: (m.fc(x), m.fc.weight * 1)), ROWS),
    "normalized": (rows(lambda m, x: (m.fc(x), F.normalize(m.fc.weight))), ROWS),
    "without gradient": (rows(lambda m, x: m.fc(x) + m.fc.weight.detach().norm()), ROWS),
    "convolution": (Reads(lambda m, x: F.conv2d(m.conv(x), m.conv.weight), conv=nn.Conv2d(3, 3, 3)), IMAGE),
    "attention in float": (
        Reads(lambda m, x: m.a(x, x[..., :3], x)[0], a=nn.MultiheadAttention(4, 2, kdim=3)),
        torch.randn(3, 2, 4),
    ),
    "a recurrence's": (
        Reads(lambda m, x: m.r(x)[0].sum() + m.r.weight_ih_l0.sum() + m.r.bias_ih_l0, r=nn.LSTM(4, 4)),
        torch.randn(3, 2, 4),
    ),
    "attention's projection": (
        Reads(lambda m, x: x @ m.a.in_proj_weight.T, a=nn.MultiheadAttention(4, 2)),
        torch.randn(3, 2, 4),
    ),
}


def on_grid(weight, bits=3, axis=0):
    spec = QuantSpec(bits=bits)
    scale, _ = minmax_qparams(weight, spec, axis)
    return dequantize(quantize(weight, scale, None, spec.quant_min, spec.quant_max), scale, None)


@pytest.mark.parametrize("reader", READERS)
def test_whoever_reads_a_weight_gets_it_on_its_grid(reader):
    model, x = READERS[reader]
    prepared, expected = prepare(model, THREE), copy.deepcopy(model)
    names = {layer.name for layer in plan(model, THREE).quantized}
    with torch.no_grad():
        for name, layer in expected.named_modules():
            for part, weight in layer.named_parameters(recurse=False):
                if name in names and "bias" not in part:
                    weight.copy_(on_grid(weight))
    torch.testing.assert_close(prepared(x), expected(x), rtol=0, atol=0)
    for mode in (prepared.train(), prepared.eval(), convert(prepared)):
        torch.testing.assert_close(mode(x), expected(x), rtol=0, atol=0)


@pytest.mark.parametrize("scale", ["minmax", "mse", "learned"])
def test_after_training_what_is_converted_answers_the_same(scale):
    torch.manual_seed(0)
    model = prepare(READERS["tied by hand"][0], QATConfig(QuantSpec(bits=3, scale=scale)))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(10):
        optimizer.zero_grad()
        F.cross_entropy(model(WORDS).flatten(0, 1), WORDS.flatten()).backward()
        optimizer.step()
    assert torch.equal(convert(model)(WORDS), model.eval()(WORDS))


def test_the_gradient_comes_from_every_reader():
    model = prepare(READERS["tied by hand"][0], THREE)
    weight, fc = model.wte.weight.detach(), model.fc
    table = on_grid(weight).requires_grad_()
    F.linear(fc(F.embedding(WORDS, table)), table).square().sum().backward()
    model(WORDS).square().sum().backward()
    torch.testing.assert_close(model.wte.weight.grad, table.grad)


def test_a_recomputed_reader_has_the_same_gradient():
    plain = READERS["tied by hand"][0]
    again = words(
        lambda m, x: checkpoint(lambda h: F.linear(h, m.wte.weight).sin(), m.fc(m.wte(x)), use_reentrant=False)
    )
    again.load_state_dict(plain.state_dict())
    grads = []
    for model, last in ((prepare(plain, THREE), torch.sin), (prepare(again, THREE), lambda y: y)):
        last(model(WORDS)).sum().backward()
        grads.append([parameter.grad for parameter in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


def test_outside_of_a_call_it_is_the_parameter():
    model = prepare(rows(lambda m, x: m.fc(x)))
    weight = model.fc.weight
    assert isinstance(weight, nn.Parameter)
    assert weight is dict(model.named_parameters())["fc.weight"]
    assert weight is model.get_parameter("fc.weight")
    assert weight is model.fc.get_parameter("weight")
    nn.init.constant_(model.fc.weight, 0.25)
    assert bool((model.fc.weight == 0.25).all())


def test_a_part_of_a_model_is_called_alone():
    inner, x = READERS["tied by hand"][0], WORDS
    model = prepare(Reads(lambda m, x: m.inner(x), inner=copy.deepcopy(inner)), THREE)
    assert torch.equal(model.inner(x), model(x))
    assert torch.equal(convert(model).inner(x), model(x))


def test_a_call_that_raised_is_over():
    def fails(m, x):
        raise KeyError(x)

    model = prepare(rows(fails))
    with pytest.raises(KeyError):
        model(ROWS)
    assert isinstance(model.fc.weight, nn.Parameter)


def test_weights_that_are_computed_before_each_call_are_quantized():
    model = prepare(rows(lambda m, x: (m.fc(x), m.fc.weight)), THREE)
    prune.l1_unstructured(model.fc, "weight", 0.5)
    y, weight = model(ROWS)
    assert torch.equal(weight, on_grid(model.fc.weight_orig * model.fc.weight_mask))
    y.sum().backward()
    assert model.fc.weight_orig.grad.abs().sum() > 0
    prune.remove(model.fc, "weight")
    assert torch.equal(convert(model)(ROWS)[0], model(ROWS)[0])
    parametrizations.spectral_norm(model.fc)
    normalized = model.train()(ROWS)[0]
    assert torch.equal(normalized, F.linear(ROWS, on_grid(model.fc.weight), model.fc.bias))


def test_a_compiler_sees_what_python_sees():
    for reader in ("tied by hand", "returned"):
        model, x = READERS[reader]
        prepared = prepare(model, THREE)
        torch.compiler.reset()
        compiled = torch.compile(prepared, backend="eager", fullgraph=True)
        torch.testing.assert_close(compiled(x), prepared(x), rtol=0, atol=0)
        exported = torch.export.export(prepared.eval(), (x,), strict=True).module()
        torch.testing.assert_close(exported(x), prepared(x), rtol=0, atol=0)


class Alias(nn.Module):
    """Holds the table's weight under a name of its own, in a list, and in a head that is left in float."""

    def __init__(self):
        super().__init__()
        self.wte, self.head = nn.Embedding(11, 8), nn.Linear(8, 11, bias=False)
        self.head.weight = self.table = self.wte.weight
        self.kept = [self.table]

    def forward(self, x):
        h = self.wte(x)
        return self.head(h), h @ self.table.T, h @ self.kept[0].T


def test_what_holds_the_same_weight_in_float_is_named_and_stays_in_float():
    config = QATConfig(QuantSpec(bits=3), overrides={"head": None})
    planned = {layer.name: layer for layer in plan(Alias(), config).layers}
    for name in ("", "head"):
        assert planned[name].reason.endswith("; it reads the weight of 'wte' in float")
    assert planned["wte"].bytes_after == 11 * 8 // 2 + 11 * 4 + 6
    assert sum(layer.bytes_after for layer in planned.values()) == 11 * 8 * 4 + planned["wte"].bytes_after
    model = prepare(Alias(), config)
    converted = convert(model)
    assert [name for name, _ in quantized_layers(converted)] == ["wte"]
    torch.testing.assert_close(converted(WORDS), model.eval()(WORDS), rtol=0, atol=0)
    assert torch.equal(converted.head.weight, model.wte.weight)


@pytest.mark.parametrize("scale", ["minmax", "mse", "learned"])
def test_layers_that_are_tied_after_prepare_answer_alike_once_converted(scale):
    """Each has a scale of its own by then; where the scales are the same, so is the weight."""
    plain = Reads(lambda m, x: m.fc(m.wte(x)), wte=nn.Embedding(8, 8), fc=nn.Linear(8, 8))
    model = prepare(plain, QATConfig(QuantSpec(bits=3, scale=scale)))
    model.fc.weight = model.wte.weight
    converted = convert(model)
    assert torch.equal(converted(WORDS % 8), model.eval()(WORDS % 8))
    assert scale != "minmax" or converted.fc.weight is converted.wte.weight


def test_a_model_is_gone_with_its_last_reference_and_a_copy_asks_itself():
    model = prepare(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)), QATConfig(QuantSpec(4)))
    model(torch.randn(3, 4)).sum().backward()
    gc.collect()
    gc.disable()
    try:
        twin = copy.deepcopy(model)
        gone = weakref.ref(model)
        del model
        assert gone() is None
    finally:
        gc.enable()
    assert twin.get_parameter("1.weight") is dict(twin.named_parameters())["1.weight"]
