"""How a model is called with a batch, and left as it was."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn


def call(model: nn.Module, batch: Any) -> Any:
    """What the model answers to a batch: a tensor, a tuple of positional arguments or a dict of keyword arguments.

    Raises:
        ValueError: its forward does not take them.
    """
    arguments, named = ((), batch) if isinstance(batch, Mapping) else (batch, {})
    if not isinstance(arguments, tuple | list):
        arguments = (arguments,)
    try:
        return model(*arguments, **named)
    except TypeError as error:
        given = ", ".join([*(type(x).__name__ for x in arguments), *map(str, named)])
        raise ValueError(
            f"{type(model).__name__} cannot be called with a batch of ({given}): {error}; expected the arguments of "
            "its forward and nothing else, such as (x for x, label in loader)"
        ) from error


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
