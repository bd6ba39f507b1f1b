"""How a model is called and what it answers, as flat rows of named tensors: what a graph has instead of arguments.

People call models with tensors, tuples, dictionaries of keyword arguments, lists of caches, dataclasses and None, and
get the like back. A graph takes tensors and answers tensors. Everything in between is settled here, once.
"""

import copy
import dataclasses
import inspect
import itertools
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, fx, nn

from qat_core.batches import arguments, require_module

Path = tuple[Hashable, ...]  # keys and positions that lead to a tensor
Visit = Callable[[Path, Tensor], Any]
Around = frozenset[int]  # the ids of what holds a value: what points back at one of them holds nothing new
FLOATS = {torch.float16, torch.float32, torch.float64}
KINDS = FLOATS | {torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64}
HOOKS = (
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
)
OWN = ("forward", *HOOKS)  # what FlatForward stands in for
NUMBERS = torch.SymInt | torch.SymFloat | torch.SymBool  # while torch.export traces; they hold its whole bookkeeping


@dataclasses.dataclass(frozen=True)
class Call:
    """One way to call a model: which arguments are tensors, what they are called, and what stays as it was given.

    Attributes:
        by_name: positional and keyword arguments by the names that forward has for them, in the order of forward's.
        keywords: of those that were given by name.
        spread: of the one that holds any number of positional ones.
        names: of the tensors among them, in the order of forward's arguments: the argument's, its keys behind it.
        tensors: the tensors themselves, on the CPU.
    """

    by_name: dict[str, Any]
    keywords: frozenset[str]
    spread: str
    names: tuple[str, ...]
    tensors: tuple[Tensor, ...]

    @classmethod
    def of(cls, model: nn.Module, example_inputs: Any) -> "Call":
        """The call that hands a model its example inputs.

        Args:
            model: whose forward names the arguments.
            example_inputs: a tensor, a tuple of arguments, a mapping of keyword arguments, or a tuple that ends in one.

        Raises:
            ValueError: it is no model, there is no tensor among them, or its forward does not take them.
        """
        require_module(model)
        args, kwargs = arguments(example_inputs)
        try:
            bound = inspect.signature(model.forward).bind(*args, **kwargs)
        except TypeError as error:
            raise ValueError(f"the inputs do not fit {type(model).__name__}.forward: {error}") from error
        kinds = {p.kind: p.name for p in bound.signature.parameters.values()}
        named = dict(bound.arguments)
        named |= named.pop(kinds.get(inspect.Parameter.VAR_KEYWORD, ""), {})
        paths, tensors = flat(named)
        if not tensors:
            found = ", ".join(type(x).__name__ for x in (*args, *kwargs.values())) or "nothing"
            raise ValueError(f"the inputs are {found}; expected a tensor, or arguments of forward with one among them")
        names = _names(paths, "input")
        spread = kinds.get(inspect.Parameter.VAR_POSITIONAL, "")
        return cls(named, frozenset(kwargs), spread, tuple(names), tuple(t.detach().cpu() for t in tensors))

    def __deepcopy__(self, memo: dict[int, Any]) -> "Call":
        """Copies of a model share it: nothing in it changes."""
        return self

    def filled(self, tensors: Sequence[Tensor]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The same arguments with other tensors, in the order of `names`."""
        rest = iter(tensors)
        named = replaced(self.by_name, lambda path, tensor: next(rest))
        positional = [named.pop(name) for name in self.by_name if name not in self.keywords]
        if self.spread in self.by_name:
            positional += positional.pop()
        return tuple(positional), named


class FlatForward:
    """The forward of a model while it is exported: from a row of tensors to a tuple of tensors.

    It stands in the model's `forward`, where copies and torch.export meet it; its signature has a name for each of the
    inputs, which torch.export asks for. The model's hooks see its own arguments and answer, as they did.

    Attributes:
        answered: names of the tensors that it answered last.
        own: the forward that the model had of its own, and its hooks.
    """

    answered: tuple[str, ...] = ()

    def __init__(self, model: nn.Module, call: Call) -> None:
        self.model, self.call = model, call
        self.own = {name: value for name, value in vars(model).items() if name in OWN}
        self.__code__ = getattr(model.forward, "__code__", type(self).__call__.__code__)  # torch tells where it is
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        parameters = [inspect.Parameter(f"input_{index}", kind) for index in range(len(call.names))]
        self.__signature__ = inspect.Signature(parameters)

    def __call__(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        named = self._named(*tensors)
        self.answered = tuple(named)
        return tuple(named.values())

    def _named(self, *tensors: Tensor) -> dict[str, Tensor]:
        args, kwargs = self.call.filled(tensors)
        attributes = vars(self.model)
        flat = {name: attributes.pop(name) for name in OWN}
        attributes |= self.own
        try:
            answer = self.model(*args, **kwargs)
        finally:
            attributes |= flat
        return answers(answer, type(self.model).__name__)


def flattened(model: nn.Module, call: Call) -> nn.Module:
    """The same model, called with a row of tensors from now on."""
    if isinstance(model, fx.GraphModule):  # whose copies are made of its graph and lose a forward of their own
        model.__class__ = type(type(model).__name__, (nn.Module,), {"forward": type(model).forward})
    forward = FlatForward(model, call)
    model.__dict__ |= {name: OrderedDict() for name in HOOKS} | {"forward": forward}
    return model


def replace_forward(model: nn.Module, forward: Callable[..., Any]) -> None:
    """Give a model a forward of its own; one that is called with a row of tensors still is."""
    if isinstance(flat := vars(model).get("forward"), FlatForward):
        flat.own["forward"] = forward
    else:
        model.__dict__["forward"] = forward


def answers(answer: Any, model: str) -> dict[str, Tensor]:
    """Name -> tensor of what a model answers: keys and fields by their names, all others numbered.

    Raises:
        ValueError: there is something else than tensors and None, or nothing.
    """
    others = [f"{_name(path, 'output')} is a {type(x).__name__}" for path, x in _leaves(answer) if not _is_free(x)]
    paths, tensors = flat(answer)
    if others or not tensors:
        raise ValueError(f"{model} answers {', '.join(others) or 'no tensor'}; expected tensors")
    named = dict(zip(_names(paths, "output"), tensors, strict=True))
    check_kind(f"{model} answers", named)
    return named


def check_kind(who: str, named: Mapping[str, Tensor]) -> None:
    """Tensors that a file has and numpy as well.

    Raises:
        ValueError: one is another.
    """
    for name, tensor in named.items():
        if tensor.is_complex():
            raise ValueError(f"{who} complex numbers, {name!r}; expected real ones: torch.view_as_real")
        if tensor.layout != torch.strided or tensor.is_nested:
            raise ValueError(f"{who} a tensor that is sparse or nested, {name!r}; expected a dense one: to_dense()")
        if tensor.dtype not in KINDS:
            raise ValueError(f"{who} {tensor.dtype}, {name!r}; expected torch.float32, such as from .float()")


def flat(value: Any) -> tuple[list[Path], list[Tensor]]:
    """All tensors inside a value, and the way to each."""
    found = [(path, leaf) for path, leaf in _leaves(value) if isinstance(leaf, Tensor)]
    return [path for path, _ in found], [tensor for _, tensor in found]


def paired(value: Any, other: Any) -> Iterator[tuple[Tensor, Any]]:
    """Each tensor inside a value, and what stands in its place in another value; None where the other is None there.

    Raises:
        ValueError: the other has no such place.
    """
    if isinstance(value, Tensor):
        yield value, other
        return
    parts, others = _parts(value) or {}, _parts(other) if other is not None else {}
    if others is None or not others.keys() <= parts.keys():
        raise ValueError(
            f"{other!r} in place of a {type(value).__name__} of {len(parts)}; expected the same containers"
        )
    for key, part in parts.items():
        yield from paired(part, others.get(key))


def replaced(value: Any, visit: Visit, path: Path = (), around: Around = frozenset()) -> Any:
    """A value of the same structure with `visit(path, tensor)` in place of each tensor."""
    if isinstance(value, Tensor):
        return visit(path, value)
    if id(value) in around or (parts := _parts(value, around)) is None:
        return value
    inside = {key: replaced(part, visit, (*path, key), around | {id(value)}) for key, part in parts.items()}
    if isinstance(value, Mapping):
        twin: Any = copy.copy(value)
        twin.update(inside)
        return twin
    if isinstance(value, tuple | list):
        return type(value)(*inside.values()) if hasattr(value, "_fields") else type(value)(inside.values())
    if dataclasses.is_dataclass(value):
        return dataclasses.replace(value, **inside)  # type: ignore[type-var]
    twin = copy.copy(value)
    twin.__dict__.update(inside)
    return twin


def _leaves(value: Any, path: Path = (), around: Around = frozenset()) -> Iterator[tuple[Path, Any]]:
    """Everything inside a value that holds nothing itself, and the way to it."""
    parts = None if isinstance(value, Tensor) else _parts(value, around)
    if parts is None:
        yield path, value
    elif id(value) not in around:
        for key, part in parts.items():
            yield from _leaves(part, (*path, key), around | {id(value)})


def _parts(value: Any, around: Around = frozenset()) -> dict[Any, Any] | None:
    """What a container holds, by key, field or position; None where it is no container."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, tuple | list):
        return dict(zip(getattr(value, "_fields", range(len(value))), value, strict=True))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return _parts_of_object(value, around)


def _parts_of_object(value: Any, around: Around) -> dict[Any, Any] | None:
    """The attributes of any other object that hold tensors, such as the keys and values of a cache."""
    attributes = getattr(value, "__dict__", None)
    if not isinstance(attributes, dict) or isinstance(value, type | nn.Module | FunctionType | NUMBERS):
        return None
    around |= {id(value)}
    return {name: part for name, part in attributes.items() if _holds_tensors(part, around)} or None


def _holds_tensors(value: Any, around: Around) -> bool:
    if isinstance(value, Tensor):
        return True
    parts = None if id(value) in around else _parts(value, around)
    return any(_holds_tensors(part, around | {id(value)}) for part in (parts or {}).values())


def _is_free(leaf: Any) -> bool:
    return leaf is None or isinstance(leaf, Tensor)


def _name(path: Path, default: str) -> str:
    """The keys on the way; positions have no name."""
    return "_".join(str(key) for key in path if not isinstance(key, int)) or default


def _names(paths: Sequence[Path], default: str) -> list[str]:
    """A name for each path; those that share one are numbered."""
    names = [_name(path, default) for path in paths]
    shared = Counter(names)

    def numbered(name: str) -> Iterator[str]:
        return (new for index in itertools.count() if (new := f"{name}_{index}") not in shared)

    others = {name: numbered(name) for name, count in shared.items() if count > 1}
    return [next(others[name]) if name in others else name for name in names]
