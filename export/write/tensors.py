"""Between torch and numpy."""

import copy
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


def as_inputs(inputs: Tensor | Sequence[Tensor]) -> tuple[Tensor, ...]:
    """One tensor, or one for each input of a model, as a tuple on the CPU.

    Raises:
        ValueError: there is something else, or nothing.
    """
    tensors = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs) if isinstance(inputs, tuple | list) else ()
    if not tensors or not all(isinstance(tensor, Tensor) for tensor in tensors):
        kinds = f"a {type(inputs).__name__} of {', '.join(type(x).__name__ for x in tensors) or 'no tensors'}"
        raise ValueError(f"the inputs are {kinds}; expected a tensor, or a tuple with one for each input of the model")
    return tuple(tensor.detach().cpu() for tensor in tensors)


@torch.no_grad()
def torch_outputs(model: nn.Module, inputs: Sequence[Tensor]) -> list[NDArray[np.generic]]:
    """What the model answers in evaluation mode on the CPU; the model and the inputs are left as they are.

    Raises:
        ValueError: it is not tensors.
    """
    answer = copy.deepcopy(model).cpu().eval()(*(x.clone() for x in inputs))
    outputs = (answer,) if isinstance(answer, Tensor) else answer
    if not isinstance(outputs, tuple | list) or not all(isinstance(output, Tensor) for output in outputs):
        kinds = [type(x).__name__ for x in outputs] if isinstance(outputs, tuple | list) else []
        found = f"a {type(outputs).__name__}" + (f" of {', '.join(kinds)}" if kinds else "")
        raise ValueError(f"{type(model).__name__} answers {found}; expected a tensor or a tuple of tensors")
    return [to_numpy(output) for output in outputs]


def to_numpy(tensor: Tensor) -> NDArray[np.generic]:
    array: NDArray[np.generic] = tensor.detach().cpu().numpy()
    return array
