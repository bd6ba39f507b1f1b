"""Arguments and answers of every shape that PyTorch people use."""

import copy
import dataclasses
import inspect
import io
from collections import OrderedDict, UserDict, defaultdict, namedtuple

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import nn

from export import check_parity, export_onnx
from export.write.call import Call, answers, flat, flattened, replaced
from qat_core import QATConfig, QuantSpec, calibrate, prepare
from qat_core.batches import arguments, unwrapped

A, B, C = torch.tensor([1.0]), torch.tensor([2.0]), torch.tensor([3.0])
Pair = namedtuple("Pair", ["left", "right"])


@dataclasses.dataclass
class Answer:
    logits: torch.Tensor
    hidden: torch.Tensor | None = None


class Text(nn.Module):
    def forward(self, ids, mask=None, past=None, *, scale=None, **more):
        y = ids if mask is None else ids * mask
        y = y if past is None else y + sum(past)
        return y if scale is None else y * scale


class Many(nn.Module):
    def forward(self, *xs):
        return sum(xs)


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (A, ["ids"]),
        ((A, B), ["ids", "mask"]),
        ((A, None, (B, C)), ["ids", "past_0", "past_1"]),
        ({"ids": A, "scale": B}, ["ids", "scale"]),
        ({"scale": C, "mask": B, "ids": A}, ["ids", "mask", "scale"]),
        ((A, {"mask": B}), ["ids", "mask"]),
        (UserDict(ids=A, mask=B), ["ids", "mask"]),
        ({"ids": A, "past": [B, C], "scale": 2.0}, ["ids", "past_0", "past_1"]),
        ({"ids": A, "extra": B}, ["ids", "extra"]),
        ({"ids": A, "past": {"key": B, "value": C}}, ["ids", "past_key", "past_value"]),
    ],
)
def test_tensors_are_called_as_the_arguments_are(given, names):
    call = Call.of(Text(), given)
    assert list(call.names) == names
    args, kwargs = call.filled(call.tensors)
    again = flat((args, kwargs))[1]
    assert all(torch.equal(a, b) for a, b in zip(again, call.tensors, strict=True))
    assert sorted(t.item() for t in again) == sorted(t.item() for t in flat(given)[1])


def test_a_forward_of_any_number_of_inputs():
    call = Call.of(Many(), (A, B, C))
    assert list(call.names) == ["xs_0", "xs_1", "xs_2"]
    assert [y.item() for y in flattened(Many(), call)(A, B, C)] == [6]


def test_a_flattened_model_takes_tensors_and_says_their_names():
    call = Call.of(Text(), (A, {"past": [B, C], "scale": torch.tensor([10.0])}))
    model = flattened(Text(), call)
    assert len(inspect.signature(model.forward).parameters) == len(call.names)
    assert [y.item() for y in model(*call.tensors)] == [60]
    assert [y.item() for y in model(*(t + 1 for t in call.tensors))] == [99]


def test_a_copy_of_a_flattened_model_calls_itself():
    model = flattened(nn.Sequential(nn.Linear(1, 1)), Call.of(nn.Sequential(nn.Linear(1, 1)), A))
    twin = copy.deepcopy(model)
    nn.init.zeros_(twin[0].weight)
    nn.init.ones_(twin[0].bias)
    assert twin(A)[0].item() == 1
    assert model(A)[0].item() != 1


def test_a_forward_of_the_models_own_is_kept():
    model = nn.Identity()
    model.forward = lambda x: {"twice": 2 * x}
    flat = flattened(model, Call.of(model, A))
    (answer,) = flat(A)
    assert (flat.forward.answered, answer.item()) == (("twice",), 2)


def test_what_is_put_around_a_model_is_taken_away():
    model = nn.Linear(1, 1)
    assert unwrapped(model) is model
    assert unwrapped(nn.DataParallel(torch.compile(model, backend="eager"))) is model


@pytest.mark.parametrize(
    ("answer", "names"),
    [
        (A, ["output"]),
        ((A, B), ["output_0", "output_1"]),
        ((A, (B, C)), ["output_0", "output_1", "output_2"]),
        ((A, None), ["output"]),
        ({"logits": A, "hidden": [B, C]}, ["logits", "hidden_0", "hidden_1"]),
        (OrderedDict(out=A, aux=B), ["out", "aux"]),
        (Answer(A), ["logits"]),
        (Pair(A, B), ["left", "right"]),
        ((A, {"loss": B}), ["output", "loss"]),
        ({"a": [A, B], "a_0": C}, ["a_1", "a_2", "a_0"]),
    ],
)
def test_answers_are_called_by_their_keys(answer, names):
    assert list(answers(answer, "Net")) == names


class Cache:
    """Of a layer that knows its model's others, and how much it has seen."""

    def __init__(self, keys, of=None):
        self.keys, self.of, self.seen, self.others = keys, of, keys.shape[0], []


class Caching(nn.Sequential):
    def forward(self, x):
        first = Cache(super().forward(x))
        first.others = [Cache(2 * first.keys, first), first]
        return {"cache": first}


def test_what_points_back_or_counts_holds_nothing_new():
    model, x = prepare(Caching(nn.Linear(3, 3))).eval(), torch.randn(4, 3)
    assert list(answers(model(x), "Net")) == ["cache_keys", "cache_others_keys"]
    file = io.BytesIO()
    assert export_onnx(model, x, file).axes == {"x": ("batch", 3)}
    assert check_parity(model, file, torch.randn(7, 3)).ok
    ring = [A]
    ring.append(ring)
    twin = replaced(ring, lambda path, tensor: tensor + 1)
    assert twin[0] == A + 1
    assert twin[1] is ring


@pytest.mark.parametrize(
    ("answer", "what"), [("text", "output is a str"), ({"n": 3, "y": A}, "n is an? int"), ((), "no tensor")]
)
def test_what_is_no_tensor_is_named(answer, what):
    with pytest.raises(ValueError, match=f"Net answers {what}.*; expected tensors"):
        answers(answer, "Net")


@pytest.mark.parametrize(
    ("tensor", "what"),
    [
        (A.bfloat16(), r"torch.bfloat16, 'y'; expected torch.float32"),
        (A.to_sparse(), "a tensor that is sparse or nested, 'y'; expected a dense one"),
    ],
)
def test_tensors_that_no_file_has_are_refused_on_both_sides(tensor, what):
    with pytest.raises(ValueError, match=f"Net answers {what}"):
        answers({"y": tensor}, "Net")
    with pytest.raises(ValueError, match="the inputs have " + what.replace("'y'", "'input'")):
        export_onnx(prepare(nn.Linear(1, 1)).eval(), tensor, io.BytesIO())


@pytest.mark.parametrize(
    "value",
    [Pair(A, B), [A, (B, None)], Answer(A, B), OrderedDict(x=A), defaultdict(list, x=[A]), UserDict(x=A), 3, None],
)
def test_a_value_keeps_its_structure(value):
    twin = replaced(value, lambda path, tensor: tensor + 1)
    assert type(twin) is type(value)
    assert [t.item() for t in flat(twin)[1]] == [t.item() + 1 for t in flat(value)[1]]


def test_arguments_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"do not fit Text\.forward: missing a required argument: 'ids'"):
        Call.of(Text(), {"mask": A})
    with pytest.raises(ValueError, match="the inputs are float; expected a tensor"):
        Call.of(Text(), 3.0)
    assert arguments([A, B]) == ((A, B), {})


@dataclasses.dataclass
class Two:
    x: torch.Tensor
    bias: torch.Tensor | None = None


class Takes(nn.Module):
    """A tensor, or a pair of them, and more by name."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def forward(self, x, bias=None, *, scale=None):
        x, bias = (x.x, x.bias) if isinstance(x, Two) else (x, bias)
        y = self.fc(x) if bias is None else self.fc(x) + bias
        return y if scale is None else {"y": y * scale}


X, ONE = torch.randn(6, 4), torch.ones(6, 1)
BATCHES = {
    "tensor": X,
    "tuple": (X, ONE),
    "list": [X, None],
    "dict": {"x": X, "scale": ONE},
    "user's dict": UserDict(x=X, scale=ONE),  # as a tokenizer's BatchEncoding is
    "tuple that ends in a dict": (X, {"scale": ONE}),
    "None": (X, None, {"scale": ONE}),
    "dataclass": (Two(X), {"scale": ONE}),
    "dataclass alone": Two(X, ONE),
}


@pytest.mark.parametrize("kind", BATCHES)
def test_every_door_takes_the_same_batches(tmp_path, kind):
    batch, path = BATCHES[kind], tmp_path / "m.onnx"
    torch.manual_seed(0)
    model = calibrate(prepare(Takes(), QATConfig(activation=QuantSpec.activation())), [batch, batch]).eval()
    export_onnx(model, batch, path)
    assert check_parity(model, path, batch).ok


@pytest.mark.parametrize("x", [torch.zeros(2, 9), torch.zeros(2, 8, dtype=torch.int64)], ids=["shape", "type"])
def test_what_a_model_does_not_take_is_said_with_its_own_words(x):
    with pytest.raises(ValueError, match=r"Sequential cannot be called with input \(2, .\): RuntimeError: mat1"):
        export_onnx(prepare(nn.Sequential(nn.Linear(8, 4))).eval(), x, io.BytesIO())


@pytest.mark.parametrize("name", ["0.weight", ""])
def test_names_that_do_not_go_get_a_sentence(name):
    model = prepare(nn.Sequential(nn.Linear(8, 4))).eval()
    with pytest.raises(ValueError, match=f"an input or output is called '{name}'"):
        export_onnx(model, torch.zeros(2, 8), io.BytesIO(), output_names=[name])


HOOKS = {
    "a reader": lambda m: m.register_forward_hook(lambda m, given, y: m.__dict__.update(rows=len(y.logits))),
    "a tuple": lambda m: m.register_forward_hook(lambda m, given, y: (y.hidden, y.logits + 1)),
    "always": lambda m: m.register_forward_hook(lambda m, given, y: {"y": y.logits}, always_call=True),
    "keywords": lambda m: m.register_forward_hook(
        lambda m, given, named, y: {**named, "y": y.logits}, with_kwargs=True
    ),
    "before": lambda m: m.register_forward_pre_hook(
        lambda m, given, named: (given, {"x": named["x"] * 2}), with_kwargs=True
    ),
}


@pytest.mark.parametrize("hook", HOOKS)
def test_hooks_see_arguments_and_answers_as_they_are(hook):
    class Hooked(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 3)

        def forward(self, x):
            return Answer(self.fc(x), self.fc(x) * 2)

    model = Hooked().eval()
    HOOKS[hook](model)
    prepared, x, file = prepare(model), torch.randn(5, 4), io.BytesIO()
    assert export_onnx(prepared, {"x": x}, file).ok
    names = [output.name for output in onnx.load_from_string(file.getvalue()).graph.output]
    got = ort.InferenceSession(file.getvalue()).run(None, {"x": x.numpy()})
    for one, other in zip(answers(prepared(x=x), "").values(), got, strict=True):
        np.testing.assert_allclose(other, one.detach().numpy(), atol=1e-6)
    assert names == {"a tuple": ["output_0", "output_1"], "always": ["y"], "keywords": ["x_out", "y"]}.get(
        hook, ["logits", "hidden"]
    )
