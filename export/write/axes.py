"""Which axes of the inputs vary: tried on the model, and then asked of torch.export.

torch.export is given the axes along which the model takes other sizes, and answers with a symbol for each: the same
symbol where sizes have to be equal, a number where the model takes no other. Two things it cannot know. A size of 1 it
takes for a constant, so the example is first enlarged where its batch is 1. And where a size is pinned by an equation
that it does not solve, such as that of a Flatten before a Linear, it lets the axis vary: so model and graph are called
with other sizes once more, and an axis for which there are none stays as it is.
"""

import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import onnx
import torch
from sympy import Integer, Symbol, solve, sympify
from torch import Tensor

from export.write.call import Call, paired
from export.write.sizes import MOST_ATTEMPTS, Group, Works, larger, other_numbers, resized, told_apart, varying

Declared = tuple[dict[int, Any] | None, ...]  # for each tensor: axis -> Dim
Symbols = tuple[dict[int, str], ...]  # for each tensor: axis -> symbol or sum of symbols, of those that vary

TORCHS_SYMBOL = r"\bs\d+\b"


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
    unknown = [name for name, said in dynamic_shapes.items() if said is not None and name not in arguments]
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
    tensors: Sequence[Tensor], symbols: Symbols, works: Works, groups: Sequence[Group] = ()
) -> list[dict[str, int]]:
    """Sizes, other than the example's, that the model takes: of all symbols at once, or else one by one.

    A symbol that is in none of them does not vary, whatever torch.export says.

    Args:
        tensors: the example.
        symbols: of its axes.
        works: does the model take these?
        groups: axes that vary together, as far as that is known.
    """
    sizes = sizes_of(tensors, symbols)
    if not sizes:
        return []
    grown = sizes_of(larger(tensors, groups), symbols)
    for together in (grown, {symbol: other_numbers(size)[0] for symbol, size in sizes.items()}):
        changed = {symbol: size for symbol, size in together.items() if size != sizes[symbol]}
        if changed.keys() == sizes.keys() and works(with_sizes(tensors, symbols, changed)):
            return [changed]
    alone: list[dict[str, int]] = []
    for symbol, size in sizes.items():
        attempts: Iterator[dict[str, int]] = ({symbol: other} for other in other_numbers(size))
        alone += itertools.islice((a for a in attempts if works(with_sizes(tensors, symbols, a))), 1)
    found = {symbol: size for sizes in alone for symbol, size in sizes.items()}
    return [found] if found and works(with_sizes(tensors, symbols, found)) else alone


def settle_longest(
    examples: Sequence[Sequence[Tensor]],
    given: Sequence[Tensor],
    works: Works,
    graph_of: Callable[[Sequence[Tensor], Declared], onnx.ModelProto],
    problem: Callable[[onnx.ModelProto, Sequence[Tensor]], str],
) -> tuple[onnx.ModelProto, str]:
    """`settle` with the first of several examples whose graph answers what was given; the last has to do.

    torch takes an axis of one for a constant, so one that may be longer is traced with more; but what a model does with
    one, such as leaving it out, may be another thing.
    """
    *others, last = examples
    for example in [example for example in others if [x.shape for x in example] != [x.shape for x in last]]:
        try:
            proto, why = settle(example, varying(example, works), works, graph_of, problem)
        except ValueError:
            continue
        if not problem(proto, given):
            return proto, why
    return settle(last, varying(last, works), works, graph_of, problem)


def settle(
    tensors: Sequence[Tensor],
    groups: Sequence[Group],
    works: Works,
    graph_of: Callable[[Sequence[Tensor], Declared], onnx.ModelProto],
    problem: Callable[[onnx.ModelProto, Sequence[Tensor]], str],
) -> tuple[onnx.ModelProto, str]:
    """The graph whose axes vary where the model's do, and why it does not take a size that the model takes.

    Where sizes of the example are equal, torch may take one axis for another; then it is given an example in which they
    are not, and what it makes of that is taken where fewer axes are confused.

    Args:
        tensors: the example.
        groups: axes that the model lets vary, those together that vary together.
        works: does the model take these?
        graph_of: traces the model with these, and these axes.
        problem: why a graph does not answer these as the model does; empty where it does.

    Raises:
        ValueError: torch cannot trace the model.
    """
    shapes = tuple(
        {a: torch.export.Dim.AUTO for j, a in sorted(sum(groups, ())) if j == i} for i in range(len(tensors))
    )
    proto, why = settle_declared(tensors, shapes, works, graph_of, problem, groups)
    if doubts := _confused(symbols_of(proto), groups):
        apart = told_apart(tensors, groups, works)
        if [x.shape for x in apart] != [x.shape for x in tensors]:
            try:
                other = settle_declared(apart, shapes, works, graph_of, problem, groups)
            except ValueError:
                return proto, why
            return other if _confused(symbols_of(other[0]), groups) < doubts else (proto, why)
    return proto, why


def _confused(symbols: Symbols, groups: Sequence[Group]) -> int:
    """How many axes do not vary in the graph, or with those of another group?"""
    shared = Counter(itertools.chain.from_iterable(groups))  # axes that are sums
    found = [
        {name for i, a in group if shared[i, a] == 1 for name in _symbols_in(symbols[i].get(a, ""))} for group in groups
    ]
    fixed = sum(a not in symbols[i] for group in groups for i, a in group)
    return fixed + sum(bool(one & other) for one, other in itertools.combinations(found, 2))


def settle_declared(
    tensors: Sequence[Tensor],
    shapes: Declared,
    works: Works,
    graph_of: Callable[[Sequence[Tensor], Declared], onnx.ModelProto],
    problem: Callable[[onnx.ModelProto, Sequence[Tensor]], str],
    groups: Sequence[Group] = (),
) -> tuple[onnx.ModelProto, str]:
    """The graph with these axes, but for those for which model and graph take no other size, and why not.

    Where torch cannot trace the model with all of them, the first axes alone may vary.
    """
    problems = [""]
    while True:
        try:
            proto = graph_of(tensors, shapes)
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

        held = {name for sizes in other_sizes(tensors, symbols, works, groups) for name in held_by(sizes)}
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
                new = re.sub(r"^(?=\d)|[^A-Za-z0-9_]", "_", new)
                names.setdefault(said, new + "_" * (new in names.values()))
    _rename_symbols(proto, TORCHS_SYMBOL, names)


def _rename_symbols(proto: onnx.ModelProto, pattern: str, names: Mapping[str, str]) -> None:
    for value in (*proto.graph.input, *proto.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = re.sub(pattern, lambda found: names.get(found[0], found[0]), dim.dim_param)


def _symbols_in(said: str) -> set[str]:
    return set(re.findall(r"[A-Za-z_]\w*", said))
