"""Between torch and numpy."""

import gc
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from export.read.memory import blocks_given_back, give_back
from qat_core.layers import quantized_layers
from qat_core.prepare import copied

LARGE = 2**25  # bytes, from which on a search for garbage takes less time than it saves memory


@torch.no_grad()
def torch_outputs(model: nn.Module, inputs: Sequence[Tensor]) -> list[NDArray[np.generic]]:
    """What a model of tensors answers in evaluation mode on the CPU; the model and the inputs are left as they are."""
    answer = twin(model).cpu().eval()(*(x.clone() for x in inputs))
    outputs = [to_numpy(output) for output in ((answer,) if isinstance(answer, Tensor) else answer)]
    free_copies(model)
    return outputs


def twin(model: nn.Module) -> nn.Module:
    """A deep copy, but for the weights of quantized layers: it holds those of the model, which no forward changes.

    Raises:
        ValueError: it cannot be copied.
    """
    weights = (p for _, layer in quantized_layers(model) for p in layer.parameters(recurse=False))
    plain = (p for p in weights if type(p) is nn.Parameter)
    return copied(model, shared={p: nn.Parameter(p.detach(), p.requires_grad) for p in plain})


def free_copies(model: nn.Module) -> None:
    """Let go of what copies of a large model hold: they refer to themselves, so they wait for the garbage collector."""
    if _is_large(model):
        gc.collect()
        give_back()


def lean(model: nn.Module) -> AbstractContextManager[None]:
    """While a large model is exported, nothing that was freed is kept for later."""
    return blocks_given_back() if _is_large(model) else nullcontext()


def _is_large(model: nn.Module) -> bool:
    return sum(p.numel() * p.element_size() for p in model.parameters()) > LARGE


def to_numpy(tensor: Tensor) -> NDArray[np.generic]:
    array: NDArray[np.generic] = tensor.detach().cpu().numpy()
    return array
