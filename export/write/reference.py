"""The model that a file is made of and compared with: it answers as the prepared one does, with constants for scales.

Its weights are the prepared model's own, which are not there twice, and are put on their grids in every call. So where
something reads one behind its layer's back, by another name, it has the float there, and the file has both.

One thing that only a call shows: a layer that is not called quantizes no input, so it is stored in float, with its
weight on the grid where something else reads it.
"""

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
from qat_core.layers import QuantLayer, quantized_layers, require_prepared
from qat_core.plan import in_float
from qat_core.prepare import fix_scales


@dataclass(frozen=True)
class Reference:
    """What a file is made of.

    Attributes:
        model: answers as the prepared one, called with a row of tensors; its scales are constants.
        expected: name -> what it answers to the example.
        left: layers that the example does not run.
    """

    model: nn.Module
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
        left = _not_run(twin(model).cpu().eval(), call)
    except Exception:  # the branches of torch.cond cannot be watched; what a stranger's forward raises comes again
        left = {}
        _call_unwatched(model, call)
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
    as_linear(fix_scales(own))
    free_copies(model)
    return Reference(own, _repeated(twin(own), call), list(left))


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


def _call_unwatched(model: nn.Module, call: Call) -> None:
    """Raises a sentence where the model does not take its inputs."""
    try:
        _named_outputs(flattened(twin(model).cpu().eval(), call), call)
    except ValueError:
        raise
    except Exception as error:
        given = ", ".join(f"{name} {tuple(x.shape)}" for name, x in zip(call.names, call.tensors, strict=True))
        said = f"{type(error).__name__}: {first_line(error)}"
        raise ValueError(f"{type(model).__name__} cannot be called with {given}: {said}") from error


def _not_run(model: nn.Module, call: Call) -> dict[str, bool]:
    """Which quantized layers a call does not run -> whether it reads their weight; the model is used up."""
    run: set[str] = set()
    read: set[str] = set()
    layers = dict(quantized_layers(model))
    for name, layer in layers.items():
        layer.__dict__["forward"] = _spy(name, layer.forward, run)
        for _, _, quantizer in layer.quantized_weights():
            quantizer.register_forward_pre_hook(lambda *_, name=name: read.add(name))
    _named_outputs(flattened(model, call), call)
    return {name: name in read for name in layers if name not in run}


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
