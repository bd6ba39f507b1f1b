"""The model that a file is made of and compared with: it answers as the prepared one does, with constants for scales.

Two things that only a call shows. A layer that is not called quantizes no input, so it is stored in float, with its
weight on the grid where something else reads it. And where something reads a weight behind its layer's back, by another
name, a prepared model has the float there, so the file has both.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from export.read.distance import default_tolerance
from export.read.files import first_line
from export.write.call import Call, FlatForward, check_kind, flattened
from export.write.conv1d import as_linear
from export.write.tensors import free_copies, to_numpy, twin
from qat_core import convert
from qat_core.layers import QuantLayer, quantized_layers, require_prepared
from qat_core.plan import in_float


@dataclass(frozen=True)
class Reference:
    """What a file is made of.

    Attributes:
        converted: weights on the grid, called with a row of tensors.
        answering: answers as the prepared model: the same, or with its own weights where others than layers read them.
        expected: name -> what it answers to the example.
        left: layers that the example does not run.
    """

    converted: nn.Module
    answering: nn.Module
    expected: dict[str, NDArray[Any]]
    left: list[str]


def reference(model: nn.Module, call: Call) -> Reference:
    """The reference of a prepared or converted model.

    Raises:
        ValueError: it was not prepared or does not take the inputs, a weight is not float32, an input or an answer is
            a tensor that no file has, no quantized layer is reached, an activation quantizer has seen no data, or the
            model answers something else than tensors.
    """
    require_prepared(model)
    for name, layer in quantized_layers(model):
        for part, weight, _ in layer.quantized_weights():
            if weight.dtype != torch.float32:
                raise ValueError(
                    f"the {part} of layer {name or 'model'!r} is {weight.dtype}; expected torch.float32: model.float()"
                )
    check_kind("the inputs have", dict(zip(call.names, call.tensors, strict=True)))
    try:
        left, answers = _not_run(twin(model).cpu().eval(), call)
    except Exception:  # the branches of torch.cond cannot be watched; what a stranger's forward raises comes again
        left, answers = {}, _unwatched(model, call)
    free_copies(model)
    own = flattened(twin(model).cpu().eval(), call)
    for name, is_read in left.items():
        unused = own.get_submodule(name)
        assert isinstance(unused, QuantLayer)
        for part, weight, quantizer in unused.quantized_weights() if is_read else ():
            unused._parameters[part] = nn.Parameter(quantizer(weight).detach(), requires_grad=False)
        in_float(unused)
    if next(quantized_layers(own), None) is None:
        raise ValueError(
            f"{type(model).__name__} calls none of its {len(left)} quantized layers, {next(iter(left))!r} first"
        )
    converted = convert(own, inplace=True)
    expected = _named_outputs(twin(converted), call)
    free_copies(model)
    same = all(np.array_equal(answers[name], y, equal_nan=y.dtype.kind == "f") for name, y in expected.items())
    answering = converted if same else as_linear(_with_weights_of(model, copy.deepcopy(converted)))
    as_linear(converted)
    return Reference(converted, answering, _repeated(twin(answering), call), list(left))


def _repeated(model: nn.Module, call: Call) -> dict[str, NDArray[Any]]:
    """What a model answers, and answers again.

    Raises:
        ValueError: it does not: no file can.
    """
    first, second = _named_outputs(model, call), _named_outputs(model, call)
    for name, answer in first.items():
        again, tolerance = second.get(name, np.empty(0)), default_tolerance(answer)
        if again.shape != answer.shape or not np.allclose(again, answer, rtol=0, atol=tolerance, equal_nan=True):
            raise ValueError(
                f"{type(model).__name__} answers {name!r} otherwise when it is called again with the same inputs, as a "
                "model that draws random numbers or keeps what it has seen; expected the same answer"
            )
    return first


def _unwatched(model: nn.Module, call: Call) -> dict[str, NDArray[Any]]:
    """What the model answers."""
    try:
        return _named_outputs(flattened(twin(model).cpu().eval(), call), call)
    except ValueError:
        raise
    except Exception as error:
        given = ", ".join(f"{name} {tuple(x.shape)}" for name, x in zip(call.names, call.tensors, strict=True))
        said = f"{type(error).__name__}: {first_line(error)}"
        raise ValueError(f"{type(model).__name__} cannot be called with {given}: {said}") from error


def _not_run(model: nn.Module, call: Call) -> tuple[dict[str, bool], dict[str, NDArray[Any]]]:
    """Which quantized layers a call does not run -> whether it reads their weight; and what the model answers.

    The model is used up.
    """
    run: set[str] = set()
    read: set[str] = set()
    layers = dict(quantized_layers(model))
    for name, layer in layers.items():
        layer.__dict__["forward"] = _spy(name, layer.forward, run)
        for _, _, quantizer in layer.quantized_weights():
            quantizer.register_forward_pre_hook(lambda *_, name=name: read.add(name))
    answers = _named_outputs(flattened(model, call), call)
    return {name: name in read for name in layers if name not in run}, answers


def _spy(name: str, forward: Callable[..., Any], reached: set[str]) -> Callable[..., Any]:
    def spy(*args: Any, **kwargs: Any) -> Any:
        reached.add(name)
        return forward(*args, **kwargs)

    return spy


@torch.no_grad()
def _named_outputs(model: nn.Module, call: Call) -> dict[str, NDArray[Any]]:
    """What a flattened model answers, name by name; what its forward changes in it stays changed."""
    outputs = [to_numpy(y) for y in model(*(x.clone() for x in call.tensors))]
    forward: FlatForward = vars(model)["forward"]
    return dict(zip(forward.answered, outputs, strict=True))


@torch.no_grad()
def _with_weights_of(prepared: nn.Module, converted: nn.Module) -> nn.Module:
    """A converted model that quantizes in its layers, on the same grids, and holds the weights as they were trained."""
    for name, layer in quantized_layers(converted):
        for parameter, own in prepared.get_submodule(name).named_parameters(recurse=False):
            layer.get_parameter(parameter).copy_(own)
    return converted
