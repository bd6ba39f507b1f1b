"""Between torch and numpy."""

import copy
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


def as_inputs(inputs: Tensor | Sequence[Tensor]) -> tuple[Tensor, ...]:
    """One tensor, or one for each input of a model, as a tuple on the CPU."""
    tensors = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    return tuple(tensor.detach().cpu() for tensor in tensors)


@torch.no_grad()
def torch_outputs(model: nn.Module, inputs: Sequence[Tensor]) -> list[NDArray[np.generic]]:
    """What the model answers in evaluation mode on the CPU; the model itself is left as it is."""
    answer = copy.deepcopy(model).cpu().eval()(*inputs)
    return [to_numpy(t) for t in ((answer,) if isinstance(answer, Tensor) else answer)]


def to_numpy(tensor: Tensor) -> NDArray[np.generic]:
    array: NDArray[np.generic] = tensor.detach().cpu().numpy()
    return array
