"""What the first call of a prepared model says of weights that it reads in float or writes to."""

import copy
import warnings
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from qat_core import QATConfig, QuantSpec, calibrate, convert, prepare
from tests.qat_core.test_readers import ROWS, THREE, WORDS, Reads, rows


def first(layer):
    return next(layer.parameters())


BEHIND_ITS_BACK = {
    "named_parameters": lambda m, x: F.linear(m.fc(x), dict(m.named_parameters())["head.weight"]),
    "parameters": lambda m, x: m.fc(x) @ first(m.head).T,
    "_parameters": lambda m, x: torch.einsum("bi,oi->bo", m.fc(x), m.head._parameters["weight"]),
    "state_dict": lambda m, x: F.linear(m.fc(x), m.head.state_dict()["weight"]),
    "together": lambda m, x: m.fc(x) @ torch.cat([first(m.head), m.head.state_dict()["weight"].abs()[:2]]).T,
    "without gradient": torch.no_grad()(lambda m, x: m.fc(x)[:4] * first(m.head)),
}
HARMLESS = {
    "its attribute": lambda m, x: F.linear(m.fc(x), m.head.weight),
    "its type": lambda m, x: m.head(m.fc(x.to(first(m.head).dtype).reshape(-1, first(m.fc).shape[1]))),
    "a penalty": lambda m, x: m.head(m.fc(x)).square().mean() + sum(p.square().sum() for p in m.parameters()),
    "an average": lambda m, x: m.head(m.fc(x)) + 0 * first(m.head).data.mul(0.9).add(first(m.fc).data * 0.1).sum(),
}


@pytest.mark.parametrize("call", BEHIND_ITS_BACK)
def test_a_weight_that_is_read_behind_its_layers_back_is_named_once(call):
    model = prepare(Reads(BEHIND_ITS_BACK[call], fc=nn.Linear(4, 4), head=nn.Linear(4, 4)))
    with pytest.warns(UserWarning, match="the weight of layer 'head' is read in float by something else") as said:
        model(ROWS)
    assert len(said) == 1
    for again in (model, copy.deepcopy(model), convert(model)):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            again(ROWS)


@pytest.mark.parametrize("call", HARMLESS)
def test_what_no_product_depends_on_is_not(call):
    model = prepare(Reads(HARMLESS[call], fc=nn.Linear(4, 4), head=nn.Linear(4, 4)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(ROWS)


def test_a_first_call_that_fails_leaves_nothing_behind():
    model = prepare(Reads(lambda m, x: m.fc(x), fc=nn.Linear(4, 4)))
    hooks = len(model.fc._forward_pre_hooks), len(model.fc._forward_hooks)
    with pytest.raises(RuntimeError):
        model(torch.zeros(2, 3))
    assert (len(model.fc._forward_pre_hooks), len(model.fc._forward_hooks)) == hooks
    assert torch.overrides._len_torch_function_stack() == 0
    model(ROWS)


@pytest.mark.parametrize("scale", ["minmax", "mse", "learned"])
@pytest.mark.parametrize("config", [THREE, QATConfig(QuantSpec(), QuantSpec.activation())], ids=["W3", "W4A8"])
def test_a_first_call_that_is_traced_is_as_any_other(config, scale):
    spec = config.activation and replace(config.activation, scale=scale)
    model = prepare(rows(lambda m, x: m.fc(x)), QATConfig(replace(config.weight, scale=scale), spec))
    if spec is not None:
        calibrate(model, [ROWS])
    model.eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated
        traced = torch.jit.trace(model, ROWS)
    assert torch.equal(traced(ROWS), model(ROWS))


def test_a_bias_that_is_read_in_float_is_named():
    config = QATConfig(QuantSpec(), QuantSpec.activation())
    with pytest.warns(UserWarning, match="the bias of layer 'fc' is read in float .* on a grid; leave it in float"):
        prepare(rows(lambda m, x: m.fc(x) + m.fc.bias), config)(ROWS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prepare(rows(lambda m, x: m.fc(x) + m.fc.bias))(ROWS)
        prepare(rows(lambda m, x: m.fc(x)), config)(ROWS)


def set_data(weight):
    weight.data = F.normalize(weight.data)


WRITERS = {
    "clamped": lambda weight: weight.data.clamp_(-0.1, 0.1),
    "divided": lambda weight: weight.detach().div_(2),
    "set": set_data,
    "a part": lambda weight: weight.data.__setitem__(0, 0.0),
    "in place": lambda weight: weight.data.__imul__(0.5),
}


@pytest.mark.parametrize("write", WRITERS)
def test_a_weight_that_is_written_to_in_a_call_is_named(write):
    model = prepare(rows(lambda m, x: (WRITERS[write](m.fc.weight), m.fc(x))[1]))
    with pytest.warns(UserWarning, match="the weight of layer 'fc' is written to while the model is called"):
        model(ROWS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(ROWS)
        prepare(rows(lambda m, x: m.fc(x) + m.fc.weight.data.abs().max().clamp_(1)))(ROWS)


@pytest.mark.parametrize("functional", [False, True])
def test_a_part_that_is_called_by_itself_is_watched_as_well(functional):
    """As an encoder that is trained without its head, or called by torch.func."""
    encoder = Reads(BEHIND_ITS_BACK["_parameters"], fc=nn.Linear(4, 4), head=nn.Linear(4, 4))
    part = prepare(nn.Sequential(encoder, nn.Linear(4, 4)))[0]
    with pytest.warns(UserWarning, match="the weight of layer 'head' is read in float by something else") as said:
        torch.func.functional_call(part, dict(part.named_parameters()), (ROWS,)) if functional else part(ROWS)
    assert len(said) == 1


def test_a_part_of_what_was_watched_is_not_watched_again():
    model = prepare(nn.Sequential(Reads(HARMLESS["its attribute"], fc=nn.Linear(4, 4), head=nn.Linear(4, 4))))
    hooks = model[0]._forward_pre_hooks, model[0]._forward_hooks
    before = [len(of) for of in hooks]
    model(ROWS)
    assert [len(of) + 1 for of in hooks] == before


class Scores(nn.Module):
    """Has a head of its own that multiplies by the table outside of forward; `read` says how."""

    def __init__(self, read):
        super().__init__()
        self.read = read
        self.wte, self.fc = nn.Embedding(11, 8), nn.Linear(8, 8)

    def forward(self, x):
        return self.fc(self.wte(x))

    def score(self, h):
        return F.linear(h, self.read(self.wte))


class Loop(nn.Module):
    """A module around a prepared one, as a LightningModule is."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def training_step(self, x):
        return F.linear(self.model(x), self.model.read(self.model.wte))


OUTSIDE = {
    "in a method": lambda model: model.score(model(WORDS)),
    "in a loop": lambda model: F.linear(model(WORDS), model.read(model.wte)),
    "in a module around it": lambda model: Loop(model).training_step(WORDS),
}


@pytest.mark.parametrize("scale", ["minmax", "mse", "learned"])
@pytest.mark.parametrize("where", OUTSIDE)
def test_a_weight_that_a_loss_reads_outside_of_a_call_is_named_and_can_be_read_on_its_grid(where, scale):
    config = QATConfig(QuantSpec(3, scale=scale))
    model = prepare(Scores(lambda table: table.weight), config)
    with pytest.warns(
        UserWarning, match=r"'wte' is read outside .* layer\.weight_quantizer\(layer\.latent\('weight'\)\)"
    ):
        OUTSIDE[where](model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        OUTSIDE[where](model)
        model = prepare(Scores(lambda table: table.weight_quantizer(table.latent("weight"))), config)
        y = OUTSIDE[where](model)
        y.square().mean().backward()
        assert torch.equal(OUTSIDE[where](convert(model)), y)
    assert len(model.wte.weight_quantizer(model.wte.weight)[0].unique()) <= 8


def test_a_weight_that_is_read_for_something_else_than_a_loss_is_not():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = prepare(Scores(None))
        nn.init.normal_(model.fc.weight)
        optimizer = torch.optim.SGD([model.fc.weight, model.wte.weight], 0.1)
        for _ in range(2):
            model(WORDS).sum().backward()
            assert model.fc.weight.norm() > 0
            with torch.no_grad():
                model.fc.weight.clamp_(-1, 1)
            optimizer.step()
            optimizer.zero_grad()


def test_a_weight_that_becomes_another_in_a_call_is_refused_with_a_sentence():
    def tie(m, x):
        m.head.weight = m.fc.weight
        return m.head(m.fc(x))

    model = Reads(tie, fc=nn.Linear(4, 4), head=nn.Linear(4, 4))
    model(ROWS)
    with pytest.raises(TypeError, match="cannot assign") as raised:
        prepare(nn.Sequential(model))(ROWS)
    assert [note.rpartition(": ")[2] for note in raised.value.__notes__] == [
        "tie layers once, before prepare, and not in each call"
    ]


def test_a_first_call_that_fails_says_why():
    """Where more hooks follow, as those of FSDP2 do."""
    model = prepare(Reads(lambda m, x: m.fc(x), fc=nn.Linear(4, 4)))
    model.register_forward_hook(lambda *_: None, always_call=True)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        model(torch.zeros(2, 3))
    hooks = len(model._forward_hooks)
    model(ROWS)
    assert len(model._forward_hooks) == hooks - 1
