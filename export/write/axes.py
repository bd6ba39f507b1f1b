"""Which axes of the inputs vary: tried on the model, and then asked of torch.export.

An axis may vary where the model can be called with half as much more along it, alone or together with others of its
size. torch.export is given those and answers with a symbol for each: the same symbol where sizes have to be equal, a
number where the model takes no other. Two things it cannot know. A size of 1 it takes for a constant, so the example is
first enlarged where its batch is 1. And where a size is pinned by an equation that it does not solve, such as that of a
Flatten before a Linear, it lets the axis vary: so model and graph are called with other sizes once more, and an axis
for which there are none stays as it is.
"""

import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import onnx
import torch
from sympy import Integer, Symbol, solve, sympify
from torch import Tensor, nn

from export.write.call import Call, paired

Declared = tuple[dict[int, Any] | None, ...]  # for each tensor: axis -> Dim
Symbols = tuple[dict[int, str], ...]  # for each tensor: axis -> symbol or sum of symbols, of those that vary

MOST_ATTEMPTS = 64
TORCHS_SYMBOL = r"\bs\d+\b"


def may_vary(tensors: Sequence[Tensor], works: Callable[[Sequence[Tensor]], bool]) -> Declared:
    """The axes along which the model takes another size, alone or together with axes of other tensors.

    Args:
        tensors: the example; those of one shape are changed together.
        works: does the model take these?
    """
    shapes = dict.fromkeys(x.shape for x in tensors)
    found: dict[tuple[torch.Size, int], Any] = {}
    for shape, axis in [(s, a) for s in shapes for a, n in enumerate(s) if n > 1]:
        equal = {other: [a for a, n in enumerate(other) if n == shape[axis]] for other in shapes if other != shape}
        choices = itertools.product(*([[], *([a] for a in axes), axes] for axes in equal.values()))
        groups = ({shape: [axis], **dict(zip(equal, choice, strict=True))} for choice in choices)
        for group in itertools.islice(groups, MOST_ATTEMPTS):
            if (shape, axis) not in found and any(works(_with(tensors, group, n)) for n in other_numbers(shape[axis])):
                found |= {(s, a): torch.export.Dim.AUTO for s, axes in group.items() for a in axes}
    return tuple({a: found[x.shape, a] for a in range(x.dim()) if (x.shape, a) in found} for x in tensors)


def _with(tensors: Sequence[Tensor], axes: Mapping[torch.Size, Sequence[int]], size: int) -> tuple[Tensor, ...]:
    return tuple(resized(x, dict.fromkeys(axes[x.shape], size)) for x in tensors)


def other_numbers(size: int) -> list[int]:
    """Sizes to try in place of one: far enough that what a pooling drops at an edge does not hide that none fits.

    Never 1, which goes with everything.
    """
    return [size + max(size // 2, 1), 2 * size, *([size // 2] if size > 3 else [])]


def declared(call: Call, dynamic_shapes: Any) -> Declared:
    """What a user says of the arguments, in torch.export's form, tensor by tensor.

    Args:
        call: the example.
        dynamic_shapes: argument -> for each of its axes a Dim or a hint; or a tuple in the order of the arguments.
            Arguments that hold several tensors take the same containers.

    Raises:
        ValueError: it does not fit the arguments.
    """
    arguments = call.by_name
    if isinstance(dynamic_shapes, tuple | list):
        if len(dynamic_shapes) > len(arguments):
            raise ValueError(
                f"dynamic_shapes has {len(dynamic_shapes)} entries; expected {len(arguments)}, one an argument"
            )
        dynamic_shapes = dict(zip(arguments, dynamic_shapes, strict=False))
    if not isinstance(dynamic_shapes, Mapping):
        raise ValueError(f"dynamic_shapes={dynamic_shapes!r}; expected a mapping of arguments, or a tuple")
    unknown = [name for name in dynamic_shapes if name not in arguments]
    if unknown:
        raise ValueError(f"dynamic_shapes names {unknown[0]!r}; expected some of {', '.join(arguments)}")
    said: list[dict[int, Any] | None] = []
    for name, value in arguments.items():
        for tensor, shape in paired(value, dynamic_shapes.get(name)):
            said.append(_axes(name, tensor, shape))
    return tuple(said)


def _axes(name: str, tensor: Tensor, shape: Any) -> dict[int, Any] | None:
    """Axis -> Dim, from a mapping or from a sequence with an entry for each axis."""
    if shape is None:
        return None
    if isinstance(shape, tuple | list):
        shape = dict(enumerate(shape))
    if not isinstance(shape, Mapping):
        raise ValueError(f"dynamic_shapes has {shape!r} for {name!r}; expected axes, such as {{0: Dim('batch')}}")
    beyond = [axis for axis in shape if not (isinstance(axis, int) and -tensor.dim() <= axis < tensor.dim())]
    if beyond:
        raise ValueError(f"dynamic_shapes has axis {beyond[0]!r} for {name!r}, which has {tensor.dim()} axes")
    return {axis % tensor.dim(): dim for axis, dim in shape.items() if dim is not None}


def enlarged(tensors: Sequence[Tensor], works: Callable[[Sequence[Tensor]], bool]) -> tuple[Tensor, ...]:
    """The same example with a batch of two where it was one, so that torch.export does not take it for a constant.

    Args:
        tensors: the example.
        works: does the model take these?

    Returns:
        The first of these that the model takes: every first axis of size 1 is doubled; of each tensor one axis of size
        1, in any combination; the example as it is.
    """
    singles = [[axis for axis, size in enumerate(x.shape) if size == 1] for x in tensors]
    if not tensors or 0 not in singles[0]:
        return tuple(tensors)
    together = tuple(axes[0] if axes[:1] == [0] else None for axes in singles)
    others = itertools.product([0], *([*axes, None] for axes in singles[1:]))
    for choice in itertools.islice(itertools.chain([together], others), MOST_ATTEMPTS):
        larger = tuple(x if axis is None else resized(x, {axis: 2}) for x, axis in zip(tensors, choice, strict=True))
        if works(larger):
            return larger
    return tuple(tensors)


def resized(x: Tensor, sizes: Mapping[int, int]) -> Tensor:
    """The same numbers over and over, or fewer of them, along the axes given: tokens stay tokens, and masks masks."""
    for axis, size in sizes.items():
        x = x.index_select(axis, torch.arange(size) % x.shape[axis])
    return x


def with_sizes(tensors: Sequence[Tensor], symbols: Symbols, sizes: Mapping[str, int]) -> tuple[Tensor, ...]:
    """An example in which symbols have those sizes, and all others theirs."""
    numbers = {name: Integer(size) for name, size in {**sizes_of(tensors, symbols), **sizes}.items()}
    return tuple(
        resized(x, {axis: int(sympify(said, locals=numbers)) for axis, said in axes.items()})
        for x, axes in zip(tensors, symbols, strict=True)
    )


def sizes_of(tensors: Sequence[Tensor], symbols: Symbols) -> dict[str, int]:
    """The sizes of the symbols: of those that are an axis of their own, and of those that an axis is a multiple of."""
    said = [
        (sympify(s, locals={name: Symbol(name) for name in re.findall(r"[A-Za-z_]\w*\b(?!\()", s)}), x.shape[axis])
        for x, axes in zip(tensors, symbols, strict=True)
        for axis, s in axes.items()
    ]
    sizes = {str(symbol): size for symbol, size in said if symbol.is_Symbol}
    for expression, size in said:
        unknown = [symbol for symbol in expression.free_symbols if str(symbol) not in sizes]
        if len(unknown) == 1:
            known = {symbol: sizes[str(symbol)] for symbol in expression.free_symbols - set(unknown)}
            found = solve(expression.subs(known) - size, unknown[0])
            sizes |= {str(unknown[0]): int(found[0])} if found and found[0].is_integer else {}
    return sizes


def other_sizes(
    tensors: Sequence[Tensor], symbols: Symbols, works: Callable[[Sequence[Tensor]], bool]
) -> list[dict[str, int]]:
    """Sizes, other than the example's, that the model takes: of all symbols at once, or else one by one.

    A symbol that is in none of them does not vary, whatever torch.export says.
    """
    sizes = sizes_of(tensors, symbols)
    together = {symbol: other_numbers(size)[0] for symbol, size in sizes.items()}
    if not sizes or works(with_sizes(tensors, symbols, together)):
        return [together] if sizes else []
    alone: list[dict[str, int]] = []
    for symbol, size in sizes.items():
        attempts: Iterator[dict[str, int]] = ({symbol: other} for other in other_numbers(size))
        alone += itertools.islice((a for a in attempts if works(with_sizes(tensors, symbols, a))), 1)
    found = {symbol: size for sizes in alone for symbol, size in sizes.items()}
    return [found] if found and works(with_sizes(tensors, symbols, found)) else alone


def settle(
    tensors: Sequence[Tensor],
    shapes: Declared,
    works: Callable[[Sequence[Tensor]], bool],
    graph_of: Callable[[Declared], onnx.ModelProto],
    problem: Callable[[onnx.ModelProto, Sequence[Tensor]], str],
) -> tuple[onnx.ModelProto, str]:
    """The graph whose axes vary where the model's do, and why it does not take a size that the model takes.

    Where torch cannot trace the model with all of them, the first axes alone may vary.

    Args:
        tensors: the example.
        shapes: what may vary.
        works: does the model take these?
        graph_of: traces the model.
        problem: why a graph does not answer these as the model does; empty where it does.

    Raises:
        ValueError: torch cannot trace the model.
    """
    problems = [""]
    while True:
        try:
            proto = graph_of(shapes)
        except ValueError:
            fewer = tuple(dims and {axis: dim for axis, dim in dims.items() if axis == 0} for dims in shapes)
            if fewer == shapes:
                raise
            shapes = fewer
            continue
        symbols = symbols_of(proto)

        def held_by(sizes: Mapping[str, int], proto: onnx.ModelProto = proto, symbols: Symbols = symbols) -> set[str]:
            """The symbols that vary, tried together or else one by one."""
            other = with_sizes(tensors, symbols, sizes)
            if works(other):
                if not (found := problem(proto, other)):
                    return set(sizes)
                problems.append(found)
            return {name for name in sizes if held_by({name: sizes[name]})} if len(sizes) > 1 else set()

        held = {name for sizes in other_sizes(tensors, symbols, works) for name in held_by(sizes)}
        fixed = sizes_of(tensors, symbols).keys() - held
        if not fixed:
            _tie(proto, tensors, symbols, held_by)
            return proto, problems[-1]
        shapes = tuple(
            dims and {axis: dim for axis, dim in dims.items() if not fixed & _symbols_in(axes.get(axis, ""))}
            for dims, axes in zip(shapes, symbols, strict=True)
        )


def _tie(
    proto: onnx.ModelProto,
    tensors: Sequence[Tensor],
    symbols: Symbols,
    held_by: Callable[[Mapping[str, int]], set[str]],
) -> None:
    """One name for axes that have another size only together.

    torch.export knows of no tie between a table and the places where it is looked up: a mask and the rows of a batch.
    """
    sizes = sizes_of(tensors, symbols)
    names: dict[str, str] = {}
    for symbol, size in sizes.items():
        others = [other for other in sizes if other != symbol and sizes[other] == size]
        groups = itertools.chain.from_iterable(itertools.combinations(others, n) for n in range(len(others) + 1))
        for group in itertools.islice(groups, MOST_ATTEMPTS if others else 0):
            together = dict.fromkeys((symbol, *group), other_numbers(size)[0])
            if held_by(together) == together.keys():
                first = min((names.get(name, name) for name in together), key=list(sizes).index)
                names |= dict.fromkeys(together, first)
                break
    _rename_symbols(proto, r"[A-Za-z_]\w*", names)


def symbols_of(proto: onnx.ModelProto) -> Symbols:
    """What the graph says of its inputs' axes."""
    return tuple(
        {axis: dim.dim_param for axis, dim in enumerate(x.type.tensor_type.shape.dim) if dim.dim_param}
        for x in proto.graph.input
    )


def name_symbols(proto: onnx.ModelProto) -> None:
    """Give torch's symbols, s77, names that say something: batch, or the first input and axis that they are of."""
    names: dict[str, str] = {}
    for x, axes in zip(proto.graph.input, symbols_of(proto), strict=True):
        for axis, said in axes.items():
            if re.fullmatch(TORCHS_SYMBOL, said):
                new = "batch" if axis == 0 and "batch" not in names.values() else f"{x.name}_{axis}"
                names.setdefault(said, new)
    _rename_symbols(proto, TORCHS_SYMBOL, names)


def _rename_symbols(proto: onnx.ModelProto, pattern: str, names: Mapping[str, str]) -> None:
    for value in (*proto.graph.input, *proto.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = re.sub(pattern, lambda found: names.get(found[0], found[0]), dim.dim_param)


def _symbols_in(said: str) -> set[str]:
    return set(re.findall(r"[A-Za-z_]\w*", said))


def takes(model: nn.Module) -> Callable[[Sequence[Tensor]], bool]:
    """Does a model take these tensors?"""

    @torch.no_grad()
    def works(tensors: Sequence[Tensor]) -> bool:
        try:
            model(*(x.clone() for x in tensors))
        except Exception:  # whatever a stranger's forward raises, it does not take them
            return False
        return True

    return works
