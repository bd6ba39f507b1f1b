"""What is refused before anything is written, each with a sentence that says what was expected."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from export.read.distance import AxesError, default_tolerance, distances
from export.read.graph import Graph
from export.write.axes import Declared
from export.write.storage import FIRST_OPSET, LAST_OPSET, STORAGES
from export.write.tensors import free_copies, to_numpy, twin


def check_arguments(
    flavor: str, storage: str | None, opset_version: int | None, min_speedup: float | None = None
) -> None:
    if flavor not in ("qdq", "ort", "auto"):
        raise ValueError(f"flavor={flavor!r} is not supported; expected 'qdq', 'ort' or 'auto'")
    if flavor == "auto" and storage is not None:
        raise ValueError(f"flavor='auto' with storage={storage!r}; expected storage=None, which it chooses itself")
    if storage not in STORAGES:
        raise ValueError(f"storage={storage!r} is not supported; expected None, 'int8' or 'packed'")
    if min_speedup is not None and not (isinstance(min_speedup, int | float) and 0 < min_speedup < math.inf):
        raise ValueError(f"min_speedup={min_speedup!r}; expected a positive number, such as 1.0, or None")
    if opset_version is not None and opset_version not in range(FIRST_OPSET, LAST_OPSET + 1):
        raise ValueError(
            f"opset_version={opset_version!r} is not supported; expected {FIRST_OPSET}, the first with INT4, "
            f"to {LAST_OPSET}"
        )


def check_numbers(model: nn.Module, answers: Mapping[str, NDArray[Any]]) -> None:
    """Nothing can be proved of what is no number."""
    for name, answer in answers.items():
        if count := int(np.isnan(answer).sum()) if answer.dtype.kind == "f" else 0:
            raise ValueError(
                f"{type(model).__name__} answers NaN in {count} of the {answer.size} numbers of {name!r}; expected an "
                "example that it answers numbers to, such as one without rows that are all padding"
            )


def check_mode(
    model: nn.Module, converted: nn.Module, inputs: Sequence[Tensor], expected: Sequence[NDArray[Any]]
) -> None:
    """A file answers as the model does in evaluation mode, so that has to be its mode where it makes a difference."""
    training = [name for name, module in model.named_modules() if module.training]
    if not training or _same(converted, training, inputs, expected):
        return
    alone = (name for name in training if not _same(converted, [name], inputs, expected))
    name = next(alone, "")
    raise ValueError(
        f"the model is in training mode, where {type(model.get_submodule(name)).__name__} {name!r} answers otherwise; "
        "expected model.eval()"
    )


def _same(
    converted: nn.Module, training: Sequence[str], inputs: Sequence[Tensor], expected: Sequence[NDArray[Any]]
) -> bool:
    """Does the model answer as expected while some of its modules train?"""
    other = twin(converted).eval()
    for name, module in other.named_modules():
        module.training = name in training
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        answers = [to_numpy(y) for y in other(*(x.clone() for x in inputs))]
    del other
    free_copies(converted)
    if [y.shape for y in answers] != [y.shape for y in expected]:
        return False
    tolerances = [default_tolerance(y) for y in expected]
    return all((d <= t).all() for d, t in zip(distances(answers, expected), tolerances, strict=True))


def names_in_file(
    given: Sequence[str], answered: Sequence[str], input_names: Sequence[str] | None, output_names: Sequence[str] | None
) -> tuple[list[str], list[str]]:
    """What inputs and outputs are called in the file: as those given and answered, or as somebody says.

    Raises:
        ValueError: there are too many names or too few, one is there twice, or one is none.
    """
    found = []
    for argument, said, own in (("input_names", input_names, given), ("output_names", output_names, answered)):
        if said is not None and len(said) != len(own):
            raise ValueError(f"{argument}={list(said)}; expected {len(own)}, for {', '.join(own)}")
        found.append(list(own if said is None else said))
    inputs, outputs = found
    if output_names is None:
        outputs = [f"{name}_out" if name in inputs else name for name in outputs]
    if wrong := [name for name in inputs + outputs if not (isinstance(name, str) and name)]:
        raise ValueError(f"an input or output is called {wrong[0]!r}; expected a name")
    twice = [name for name, count in Counter(inputs + outputs).items() if count > 1]
    if twice:
        raise ValueError(f"two inputs or outputs are called {twice[0]!r}; expected a name of its own for each")
    return inputs, outputs


def check_names(proto: onnx.ModelProto) -> None:
    """Tensors inside have names of their own."""
    inside = {tensor.name for tensor in proto.graph.initializer}
    if taken := [value.name for value in (*proto.graph.input, *proto.graph.output) if value.name in inside]:
        raise ValueError(f"an input or output is called {taken[0]!r}, as is a tensor inside; expected another name")


def check_recurrence(model: nn.Module) -> None:
    """What torch makes of it answers wrongly: the operator has no such weight."""
    for name, module in model.named_modules():
        if isinstance(module, nn.LSTM) and module.proj_size:
            raise ValueError(
                f"the LSTM {name!r} has proj_size={module.proj_size}, which ONNX's LSTM has not; expected proj_size=0, "
                "and a Linear behind it"
            )


@contextmanager
def same_axes_of_one_row(model: nn.Module) -> Iterator[None]:
    """Says what it means that the file has other axes than the answer: its batch varies.

    Raises:
        ParityError: it has.
    """
    try:
        yield
    except AxesError as error:
        raise AxesError(
            f"{error}: {type(model).__name__} answers one row with other axes than several, as squeeze(0) does; "
            "expected the same axes for every batch, or dynamic_batch=False"
        ) from error


def check_batch(model: nn.Module, graph: Graph, why_fixed: str) -> None:
    """Some batch has to vary; why_fixed: what the file did with another that the model takes."""
    first = [sizes[0] for sizes in graph.axes.values() if sizes]
    if first and not any(first):
        raise ValueError("the example has no rows; expected one at least, from which others can be made")
    if first and all(isinstance(size, int) for size in first):
        raise ValueError(
            f"{type(model).__name__} takes batches of {first[0]} only: "
            f"{why_fixed or 'its forward depends on that number'}; expected one that takes any, or dynamic_batch=False"
        )


def check_declared(shapes: Declared, graph: Graph, why_fixed: str) -> None:
    """An axis that the user lets vary has to; why_fixed: what the file did with another size that the model takes."""
    for (name, sizes), dims in zip(graph.axes.items(), shapes, strict=True):
        for axis, dim in (dims or {}).items():
            if isinstance(sizes[axis], int) and dim is not torch.export.Dim.AUTO and dim is not torch.export.Dim.STATIC:
                raise ValueError(
                    f"dynamic_shapes lets axis {axis} of {name!r} vary from {sizes[axis]}; but "
                    f"{why_fixed or 'the model takes no other size'}"
                )
