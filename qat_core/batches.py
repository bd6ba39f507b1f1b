"""How a model is called with a batch, and left as it was."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


def call(model: nn.Module, batch: Any) -> Any:
    """What the model answers to a batch.

    Raises:
        ValueError: its forward does not take it.
    """
    positional, named = arguments(batch)
    try:
        return model(*positional, **named)
    except torch.OutOfMemoryError:
        raise
    except (TypeError, AttributeError, RuntimeError) as error:
        given = ", ".join([*(type(x).__name__ for x in positional), *map(str, named)])
        said, expected = str(error), "the arguments of its forward and nothing else, such as (x for x, label in loader)"
        if type(error).__module__.startswith("torch._dynamo"):  # its own words are a page
            said = str(error).strip().partition("\n")[0]
            expected = (
                "a forward whose ranges follow the batches, as they cannot in a branch of torch.cond or the body of a "
                "loop of torch's: show data to the layers in there one by one, calibrate(model.layer, batches)"
            )
        raise ValueError(
            f"{type(model).__name__} cannot be called with a batch of ({given}): {said}; expected {expected}"
        ) from error


def require_module(model: Any) -> None:
    if not isinstance(model, nn.Module):
        raise ValueError(f"the model is a {type(model).__name__}; expected a torch.nn.Module")


def check_batches(batches: Any) -> None:
    """A tensor would be taken for its rows, and a mapping for its keys.

    Raises:
        ValueError: they are one batch, or nothing that can be gone through.
    """
    if isinstance(batches, Mapping | Tensor | str) or not hasattr(batches, "__iter__"):
        raise ValueError(f"batches is a {type(batches).__name__}; expected an iterable of batches, such as [batch]")


def arguments(batch: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments: of a tensor, a tuple, a mapping, or a tuple that ends in a mapping."""
    if isinstance(batch, Mapping):
        return (), dict(batch)
    if not isinstance(batch, tuple | list):
        return (batch,), {}
    if batch and isinstance(batch[-1], Mapping):
        return tuple(batch[:-1]), dict(batch[-1])
    return tuple(batch), {}


def unwrapped(model: nn.Module) -> nn.Module:
    """The module inside what torch.compile, DataParallel and DistributedDataParallel put around it."""
    while True:
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        elif isinstance(inside := getattr(model, "_orig_mod", None), nn.Module):
            model = inside
        else:
            return model


@contextmanager
def in_evaluation(*models: nn.Module) -> Iterator[None]:
    """Every module answers as in evaluation, and is in its own mode again afterwards."""
    modes = {module: module.training for model in models for module in model.modules()}
    try:
        for model in models:
            model.eval()
        yield
    finally:
        for module, training in modes.items():
            module.training = training
