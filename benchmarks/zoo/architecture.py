"""What the zoo knows of an architecture."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True)
class Architecture:
    """One network, and how it is called.

    Attributes:
        build: makes it, with random weights.
        inputs: batch and length -> what its forward takes, as `export_onnx` takes it.
        seen: batch and length of the example.
        unseen: those of the batch that the file is tried on.
    """

    build: Callable[[], nn.Module]
    inputs: Callable[[int, int], Any]
    seen: tuple[int, int] = (2, 7)
    unseen: tuple[int, int] = (3, 11)
