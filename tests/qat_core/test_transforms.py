"""torch.func and compilers: a prepared model is transformed as a float one is, right after prepare."""

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, jacrev, jvp, stack_module_state, vmap

from qat_core import NoDataError, QATConfig, QuantSpec, calibrate, prepare

pytestmark = pytest.mark.filterwarnings("ignore:There is a performance drop")
CONFIGS = {
    "W4": QATConfig(QuantSpec()),
    "W2 half-shifted": QATConfig(QuantSpec(bits=2, half_shift=True)),
    "W4 per group": QATConfig(QuantSpec(granularity="per_group", group_size=4)),
    "W3 asymmetric": QATConfig(QuantSpec(bits=3, symmetric=False)),
    "W4 mse": QATConfig(QuantSpec(scale="mse")),
    "W4 learned": QATConfig(QuantSpec(scale="learned")),
    "W4A8": QATConfig(QuantSpec(), QuantSpec.activation(8)),
    "W4A8 learned": QATConfig(QuantSpec(scale="learned"), QuantSpec.activation(8, scale="learned")),
    "W8A8 dynamic": QATConfig(QuantSpec(bits=8), QuantSpec(bits=8, dynamic=True)),
}
ALL_CODE = ("W4 mse", "W4A8", "W4A8 learned", "W8A8 dynamic")  # for a compiler, which is slow
X, T = torch.randn(6, 4), torch.randn(6, 4)


class Sum(nn.Module):
    """A layer of each kind side by side, so that no rounding of one hides what becomes of another."""

    def __init__(self, names):
        super().__init__()
        self.layers = nn.ModuleDict({name: nn.Linear(4, 4) for name in names})

    def forward(self, x):
        return torch.stack([layer(x).tanh() for layer in self.layers.values()]).sum(0)


def cold(seed=0, names=tuple(CONFIGS)):
    torch.manual_seed(seed)
    return prepare(Sum(names), QATConfig(overrides={f"layers.{name}": CONFIGS[name] for name in names}))


def warm(seed=0, names=tuple(CONFIGS)):
    model = cold(seed, names)
    model(X)
    return model.eval()


def test_gradients_of_single_samples_are_those_of_a_loop():
    model = warm()
    parameters = {key: value.detach() for key, value in model.named_parameters()}
    buffers = dict(model.named_buffers())

    def loss(parameters, x, t):
        return (functional_call(model, (parameters, buffers), (x[None],)) - t[None]).square().mean()

    got = vmap(grad(loss), (None, 0, 0))(parameters, X, T)
    for i in range(len(X)):
        model.zero_grad()
        (model(X[i : i + 1]) - T[i : i + 1]).square().mean().backward()
        for key, value in model.named_parameters():
            torch.testing.assert_close(got[key][i], value.grad, rtol=1e-4, atol=1e-5)


def test_an_ensemble_answers_as_its_members():
    members = [warm(seed) for seed in range(3)]
    parameters, buffers = stack_module_state(members)
    y = vmap(lambda p, b: functional_call(members[0], (p, b), (X,)))(parameters, buffers)
    torch.testing.assert_close(y, torch.stack([member(X) for member in members]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", CONFIGS)
def test_forward_mode_agrees_with_backward_mode(name):
    layer = warm().layers[name]
    _, tangent = jvp(layer, (X,), (torch.ones_like(X),))
    jacobian = jacrev(layer)(X)  # (6, 4, 6, 4)
    torch.testing.assert_close(tangent, jacobian.sum((-2, -1)))
    assert tangent.abs().sum() > 0


@pytest.mark.parametrize("name", ["W4A8", "W4A8 learned"])
@pytest.mark.parametrize("training", [False, True])
def test_a_range_without_data_is_refused_where_none_can_be_taken_in(name, training):
    model = cold(names=(name,)).train(training)
    with pytest.raises(NoDataError, match=f"layer 'layers.{name}': .* while torch.func transforms the forward pass"):
        vmap(model)(X.reshape(3, 2, 4))
    parameters, buffers = dict(model.named_parameters()), dict(model.named_buffers())
    with pytest.raises(NoDataError):
        grad(lambda p: functional_call(model, (p, buffers), (X,)).sum())(parameters)


def test_a_whole_graph_is_compiled_before_the_first_call_and_after_it():
    torch.compiler.reset()
    model = cold(names=ALL_CODE)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    for _ in range(2):
        compiled(X).sum().backward()
        assert all(layer.weight.grad.abs().sum() > 0 for layer in model.layers.values())
    torch.testing.assert_close(compiled.eval()(X), model.eval()(X), rtol=0, atol=0)


def test_a_model_that_has_seen_data_is_exported_whole():
    model = warm(names=ALL_CODE)
    exported = torch.export.export(model, (X,), strict=True).module()
    torch.testing.assert_close(exported(X), model(X), rtol=0, atol=0)


def test_ranges_inside_of_a_branch_are_shown_data_one_by_one():
    """What torch.cond compiles writes into no buffer."""

    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            return torch.cond(x.sum() > 0, self.a, self.b, (x,))

    model, x = prepare(Branches(), QATConfig(activation=QuantSpec.activation())), torch.randn(3, 4)
    with pytest.raises(ValueError, match=r"in a branch of torch\.cond .*: show data to the layers in there one by one"):
        calibrate(model, [x])
    calibrate(model.a, [x])
    calibrate(model.b, [x])
    assert torch.equal(model.eval()(x), (model.a if x.sum() > 0 else model.b)(x))
