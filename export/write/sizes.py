"""Which sizes a model takes: found by calling it with other ones.

Sizes that happen to be equal, four rows of four words, hide which axes belong together: the other axis of a mask may be
its batch as well as its length. So an axis is tried together with axes of its size elsewhere, and where one example
cannot tell two of them apart, another is made that can.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

Works = Callable[[Sequence[Tensor]], bool]
Place = tuple[int, int]  # a tensor, and one of its axes
Group = tuple[Place, ...]  # axes that have another size only together
Rows = Sequence[Sequence[int]]  # tensors that are changed together

MOST_ATTEMPTS = 64
SUMS = 4  # sets of axes of each of two sizes
FEW = 9  # axes that are tried one by one


def varying(tensors: Sequence[Tensor], works: Works) -> list[Group]:
    """The axes along which the model takes another size, those together that it takes together.

    Tensors of one shape are changed together; one by one only where the model does not take that. Of other tensors the
    axis in the same place goes along where it may, since a model that is given a mask without a hole may not read it.
    What then is left may be a sum, as the length of a mask is that of the cache and of the words: larger axes grow by
    as much.

    Args:
        tensors: the example.
        works: does the model take these?
    """
    ways = _ways(tensors)
    places = [(i, axis) for i, x in enumerate(tensors) for axis, n in enumerate(x.shape) if n > 1]
    left, found = set(places), list[Group]()
    sizes = {(i, axis): tensors[i].shape[axis] for i, axis in places}

    def first_of(groups: Iterator[Group], numbers: Sequence[int]) -> None:
        for group in itertools.islice(groups, MOST_ATTEMPTS):
            if any(works(_with(tensors, group, n)) for n in numbers):
                found.append(group)
                left.difference_update(group)
                return

    def places_of(rows: Rows) -> list[Place]:
        heads = {row[0] for row in rows}
        return [place for place in places if place[0] in heads]

    for rows in ways:
        for place in places_of(rows):
            alone = rows is not ways[0] and sum(sizes[p] == sizes[place] for p in left) > FEW
            if place in left and not alone:
                first_of(_choices(rows, sizes, left, place), other_numbers(sizes[place]))
    rest = set(left)
    for rows in ways if len(rest) <= FEW else []:
        for place in places_of(rows):
            larger = [p for p in places_of(rows) if p in rest and sizes[p] > sizes[place]]
            sums = (
                part + whole
                for p in larger
                for part in itertools.islice(_choices(rows, sizes, left, place), SUMS)
                for whole in itertools.islice(_choices(rows, sizes, rest, p), SUMS)
            )
            if place in left:
                first_of(sums, other_numbers(sizes[place])[:1])
    return found


def _ways(tensors: Sequence[Tensor]) -> list[Rows]:
    """Tensors of one shape together, and where there are such, one by one as well."""
    alike: dict[torch.Size, list[int]] = {}
    for index, x in enumerate(tensors):
        alike.setdefault(x.shape, []).append(index)
    one_by_one = [[i] for i in range(len(tensors))]
    return [list(alike.values()), *([one_by_one] if len(alike) < len(tensors) else [])]


def _choices(rows: Rows, sizes: Mapping[Place, int], left: set[Place], first: Place) -> Iterator[Group]:
    """The sets of axes that an axis may have to change with, the likely ones first."""
    index, axis = first
    ordered = sorted(rows, key=lambda row: index not in row)
    equal = [[a for i, a in sizes if i == row[0] and (i, a) in left and sizes[i, a] == sizes[first]] for row in ordered]
    own = [(axis, *more) for more in ((), *_sets([a for a in equal[0] if a != axis]))]
    others = [[*_sets(sorted(axes, key=lambda a: a != axis)), ()] for axes in equal[1:]]
    for choice in itertools.product(own, *others):
        yield tuple((i, a) for row, axes in zip(ordered, choice, strict=True) for i in row for a in axes)


def _sets(axes: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """All but the empty one, small ones first."""
    return itertools.chain.from_iterable(itertools.combinations(axes, n) for n in range(1, len(axes) + 1))


def _with(tensors: Sequence[Tensor], group: Group, size: int) -> tuple[Tensor, ...]:
    """The first axis of the group in this size; the others larger or smaller by as much."""
    more = size - tensors[group[0][0]].shape[group[0][1]]
    return tuple(resized(x, {axis: x.shape[axis] + more for j, axis in group if j == i}) for i, x in enumerate(tensors))


def larger(tensors: Sequence[Tensor], groups: Sequence[Group]) -> tuple[Tensor, ...]:
    """The same example with more along every axis that varies."""
    for group in groups:
        tensors = _with(tensors, group, other_numbers(tensors[group[0][0]].shape[group[0][1]])[0])
    return tuple(tensors)


def told_apart(tensors: Sequence[Tensor], groups: Sequence[Group], works: Works) -> tuple[Tensor, ...]:
    """An example in which no group has the size of another or of an axis that does not vary, as far as there is one."""
    for group in groups:
        size = tensors[group[0][0]].shape[group[0][1]]
        others = {n for i, x in enumerate(tensors) for axis, n in enumerate(x.shape) if (i, axis) not in group}
        sizes = [n for n in (*other_numbers(size), 3 * size, 5 * size) if n not in others] if size in others else []
        examples = (_with(tensors, group, n) for n in sizes)
        tensors = next((example for example in examples if works(example)), tensors)
    return tuple(tensors)


def other_numbers(size: int) -> list[int]:
    """Sizes to try in place of one: far enough that what a pooling drops at an edge does not hide that none fits.

    Never 1, which goes with everything.
    """
    return [size + max(size // 2, 1), 2 * size, *([size // 2] if size > 3 else [])]


def enlarged(tensors: Sequence[Tensor], works: Works) -> tuple[Tensor, ...]:
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


def longer(tensors: Sequence[Tensor], works: Works) -> tuple[Tensor, ...]:
    """The same example with two along every axis that has one, where the model takes two as well as three.

    Three as well, since two may be what another axis has, with which a single one goes together.
    """
    left = {(i, axis) for i, x in enumerate(tensors) for axis, n in enumerate(x.shape) if n == 1}
    sizes = dict.fromkeys(sorted(left), 1)
    for rows in _ways(tensors):
        for place in [p for p in sizes if p[0] in {row[0] for row in rows}]:
            groups = itertools.islice(_choices(rows, sizes, left, place), MOST_ATTEMPTS) if place in left else ()
            for group in groups:
                if all(works(_with(tensors, group, n)) for n in (2, 3)):
                    tensors = _with(tensors, group, 2)
                    left.difference_update(group)
                    break
    return tuple(tensors)


def resized(x: Tensor, sizes: Mapping[int, int]) -> Tensor:
    """The same numbers over and over, or fewer of them, along the axes given: tokens stay tokens, and masks masks."""
    for axis, size in sizes.items():
        x = x.index_select(axis, torch.arange(size) % x.shape[axis])
    return x


def takes(model: nn.Module) -> Works:
    """Does a model take these tensors?"""

    @torch.no_grad()
    def works(tensors: Sequence[Tensor]) -> bool:
        try:
            model(*(x.clone() for x in tensors))
        except Exception:  # whatever a stranger's forward raises, it does not take them
            return False
        return True

    return works
