"""Between torch and numpy."""

import copy
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


@torch.no_grad()
def torch_outputs(model: nn.Module, inputs: Sequence[Tensor]) -> list[NDArray[np.generic]]:
    """What a model of tensors answers in evaluation mode on the CPU; the model and the inputs are left as they are."""
    answer = copy.deepcopy(model).cpu().eval()(*(x.clone() for x in inputs))
    return [to_numpy(output) for output in ((answer,) if isinstance(answer, Tensor) else answer)]


def to_numpy(tensor: Tensor) -> NDArray[np.generic]:
    array: NDArray[np.generic] = tensor.detach().cpu().numpy()
    return array
