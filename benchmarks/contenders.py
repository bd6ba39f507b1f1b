"""Who is measured, and the small interface that lets one runner measure them all."""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol, cast

from torch import Tensor, nn
from torch.optim import Optimizer

from benchmarks.task import adam


class Library(Protocol):
    """What the module of a contender offers.

    Where a library quantizes inside the optimizer, its module also has `optimizer(model, bits, granularity, scale,
    steps, base)`, around what `base` makes of parameter groups; where a recipe does something after every optimizer
    step, `after_step(model, scale, steps)` returns what. A library that is in one kind of table only has only what that
    needs: `forms` and `to_file` for exported files, all else for training.

    Attributes:
        TIMED: the recipes whose step is timed and whose bytes are counted, at 4 bits per channel.
        SHORTLIST: the recipes that are trained where there is no time for all.
    """

    TIMED: tuple[str, ...]
    SHORTLIST: tuple[str, ...]

    def recipes(self, bits: float, granularity: str, activation_bits: int | None = None) -> Sequence[str]:
        """Names of its ways to quantize weights, and layers' inputs, so, its default first; empty if it has none."""

    def build(
        self,
        model: nn.Module,
        bits: float,
        granularity: str,
        scale: str,
        example: Tensor,
        activation_bits: int | None = None,
    ) -> nn.Module:
        """The model prepared for training by the recipe named `scale`; `example` is a batch of its inputs."""

    def forms(self, bits: int, activation_bits: int | None) -> Sequence[str]:
        """Names of the ways in which it writes such a network to an ONNX file."""

    def to_file(
        self, model: nn.Module, bits: int, activation_bits: int | None, form: str, example: Tensor, path: Path
    ) -> nn.Module:
        """Quantize a float model, calibrate it on `example` and write it; returns what the file should answer like."""


@dataclass(frozen=True)
class Contender:
    """A column of the tables.

    Attributes:
        title: what the tables call it.
        module: where its `Library` is.
        package: the distribution it comes from; None is this repository.
    """

    title: str
    module: str
    package: str | None = None

    def library(self) -> Library:
        """Its module.

        Raises:
            ImportError: it is not installed here.
        """
        return cast(Library, importlib.import_module(self.module))


CONTENDERS = {
    "ours": Contender("ours", "benchmarks.ours"),
    "brevitas": Contender("Brevitas", "benchmarks.peers.with_brevitas", "brevitas"),
    "torchao": Contender("torchao", "benchmarks.peers.with_torchao", "torchao"),
    "parq": Contender("torchao PARQ", "benchmarks.peers.with_parq", "torchao"),
    "modelopt": Contender("ModelOpt", "benchmarks.peers.with_modelopt", "nvidia-modelopt"),
    "aimet": Contender("AIMET", "benchmarks.peers.with_aimet", "aimet-torch"),
}
TRAINED = ("ours", "brevitas", "torchao", "parq", "modelopt")


class Trainee(NamedTuple):
    """What is trained, what trains it, and what is called after every step."""

    model: nn.Module
    optimizer: Optimizer
    after_step: Callable[[], object]


def trainee(
    library: Library,
    model: nn.Module,
    example: Tensor,
    bits: float,
    granularity: str,
    scale: str,
    steps: int,
    base: Callable[..., Optimizer] = adam,
    activation_bits: int | None = None,
) -> Trainee:
    """The model with the recipe named `scale`, ready for `steps` steps of the optimizer that `base` makes."""
    model = library.build(model, bits, granularity, scale, example, activation_bits)
    own_optimizer = getattr(library, "optimizer", None)
    own_after_step = getattr(library, "after_step", None)
    return Trainee(
        model,
        own_optimizer(model, bits, granularity, scale, steps, base) if own_optimizer else base(model.parameters()),
        own_after_step(model, scale, steps) if own_after_step else nothing,
    )


def nothing() -> None:
    """What most recipes do after a step."""
