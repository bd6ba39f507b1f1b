"""Places for the boxes of a graph, in layers from top to bottom (Sugiyama, Tagawa and Toda 1981).

1. A box lies below all that it reads; what reads nothing is pulled down to where it is needed.
2. An edge that skips layers gets a bend in each, so that every edge joins neighbours.
3. Each layer is ordered by the mean place of its neighbours, up and down in turn; the order with the fewest crossings
   wins.
4. Each box moves to the weighted mean of its neighbours, as far as the others leave it room: isotonic regression.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

SWEEPS, STEPS = 12, 60  # of ordering, of moving
GAP_X, GAP_Y = 20.0, 26.0
STRAIGHT = 8  # an edge between two bends pulls so much harder than one between boxes


class Edge(NamedTuple):
    """From one box to another; the greater the weight, the straighter it is drawn."""

    source: str
    target: str
    weight: float = 1.0


@dataclass(frozen=True)
class Layout:
    """Where everything goes.

    Attributes:
        centres: box -> (x, y).
        paths: for each edge the points it passes, from the foot of one box to the head of the other.
        width, height: of the whole.
    """

    centres: dict[str, tuple[float, float]]
    paths: list[list[tuple[float, float]]]
    width: float
    height: float


def layered(sizes: Mapping[str, tuple[float, float]], edges: Sequence[Edge]) -> Layout:
    """Lay out an acyclic graph.

    Args:
        sizes: box -> (width, height), each before all that reads it.
        edges: between boxes.
    """
    ranks = _ranks(list(sizes), edges)
    boxes = dict(sizes)
    chains = [_with_bends(index, edge, ranks, boxes) for index, edge in enumerate(edges)]
    short = [
        Edge(a, b, edge.weight * (STRAIGHT if {a, b}.isdisjoint(sizes) else 1))
        for edge, chain in zip(edges, chains, strict=True)
        for a, b in pairwise(chain)
    ]
    layers = _ordered(ranks, short)
    xs = _columns(layers, boxes, short)

    tops, y = [], 0.0
    heights = [max(boxes[box][1] for box in layer) for layer in layers]
    for height in heights:
        tops.append(y)
        y += height + GAP_Y
    centres = {box: (xs[box], tops[rank] + heights[rank] / 2) for box, rank in ranks.items()}
    paths = []
    for source, *bends, target in chains:
        points = [(xs[source], centres[source][1] + boxes[source][1] / 2)]
        for bend in bends:  # straight past the boxes of its layer
            top = tops[ranks[bend]]
            points += [(xs[bend], top), (xs[bend], top + heights[ranks[bend]])]
        paths.append([*points, (xs[target], centres[target][1] - boxes[target][1] / 2)])
    width = max((xs[box] + boxes[box][0] / 2 for box in sizes), default=0.0)
    return Layout({box: centres[box] for box in sizes}, paths, width, max(y - GAP_Y, 0.0))


def _ranks(boxes: Sequence[str], edges: Sequence[Edge]) -> dict[str, int]:
    sources: dict[str, list[str]] = {box: [] for box in boxes}
    readers: dict[str, list[str]] = {box: [] for box in boxes}
    for edge in edges:
        sources[edge.target].append(edge.source)
        readers[edge.source].append(edge.target)
    ranks: dict[str, int] = {}
    for box in boxes:
        ranks[box] = max((ranks[source] + 1 for source in sources[box]), default=0)
    for box in reversed(boxes):
        if readers[box] and len(sources[box]) <= 1:
            ranks[box] = min(ranks[reader] for reader in readers[box]) - 1
    top = min(ranks.values(), default=0)
    return {box: rank - top for box, rank in ranks.items()}


def _with_bends(index: int, edge: Edge, ranks: dict[str, int], boxes: dict[str, tuple[float, float]]) -> list[str]:
    """The boxes and bends that an edge passes; its bends are added to the boxes."""
    bends = []
    for rank in range(ranks[edge.source] + 1, ranks[edge.target]):
        bend = f"\0{index}.{rank}"
        ranks[bend], boxes[bend] = rank, (0.0, 0.0)
        bends.append(bend)
    return [edge.source, *bends, edge.target]


def _ordered(ranks: Mapping[str, int], edges: Sequence[Edge]) -> list[list[str]]:
    layers: list[list[str]] = [[] for _ in range(max(ranks.values(), default=-1) + 1)]
    for box, rank in ranks.items():
        layers[rank].append(box)
    above, below = _neighbours(ranks, edges)
    best, fewest = [list(layer) for layer in layers], _crossings(layers, edges)
    for sweep in range(SWEEPS):
        down = sweep % 2 == 0
        near = above if down else below
        for layer in layers if down else reversed(layers):
            place = {box: index for other in layers for index, box in enumerate(other)}
            means = {box: _mean([place[other] for other in near[box]], place[box]) for box in layer}
            layer.sort(key=means.__getitem__)
        crossings = _crossings(layers, edges)
        if crossings < fewest:
            best, fewest = [list(layer) for layer in layers], crossings
    return best


def _columns(
    layers: Sequence[Sequence[str]], boxes: Mapping[str, tuple[float, float]], edges: Sequence[Edge]
) -> dict[str, float]:
    xs: dict[str, float] = {}
    for layer in layers:
        xs.update(
            zip(layer, _spaced([0.0] * len(layer), [1.0] * len(layer), [boxes[b][0] for b in layer]), strict=True)
        )
    pulls: dict[str, list[tuple[str, float]]] = {box: [] for box in xs}
    for edge in edges:
        pulls[edge.source].append((edge.target, edge.weight))
        pulls[edge.target].append((edge.source, edge.weight))
    for sweep in range(STEPS):
        for layer in layers if sweep % 2 == 0 else reversed(layers):
            weights = [sum(weight for _, weight in pulls[box]) or 0.01 for box in layer]
            wanted = [
                sum(xs[other] * weight for other, weight in pulls[box]) / total if pulls[box] else xs[box]
                for box, total in zip(layer, weights, strict=True)
            ]
            xs.update(zip(layer, _spaced(wanted, weights, [boxes[box][0] for box in layer]), strict=True))
    left = min((xs[box] - boxes[box][0] / 2 for box in xs), default=0.0)
    return {box: x - left for box, x in xs.items()}


def _spaced(wanted: Sequence[float], weights: Sequence[float], widths: Sequence[float]) -> list[float]:
    """The places nearest to those wanted, in least squares, at which boxes keep their order and do not touch."""
    offsets = [0.0]
    for left, right in pairwise(widths):
        offsets.append(offsets[-1] + (left + right) / 2 + GAP_X)
    blocks: list[tuple[float, float, int]] = []  # (mean, weight, members): pool adjacent violators
    for want, weight, offset in zip(wanted, weights, offsets, strict=True):
        mean, total, members = want - offset, weight, 1
        while blocks and blocks[-1][0] > mean:
            other, other_total, count = blocks.pop()
            mean = (mean * total + other * other_total) / (total + other_total)
            total, members = total + other_total, members + count
        blocks.append((mean, total, members))
    flat = [mean for mean, _, members in blocks for _ in range(members)]
    return [place + offset for place, offset in zip(flat, offsets, strict=True)]


def _crossings(layers: Sequence[Sequence[str]], edges: Sequence[Edge]) -> int:
    place = {box: (rank, i) for rank, layer in enumerate(layers) for i, box in enumerate(layer)}
    between: dict[int, list[tuple[int, int]]] = {}
    for edge in edges:
        rank, start = place[edge.source]
        between.setdefault(rank, []).append((start, place[edge.target][1]))
    return sum(
        (a[0] - b[0]) * (a[1] - b[1]) < 0
        for pairs in between.values()
        for i, a in enumerate(pairs)
        for b in pairs[i + 1 :]
    )


def _neighbours(ranks: Mapping[str, int], edges: Sequence[Edge]) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    above: dict[str, list[str]] = {box: [] for box in ranks}
    below: dict[str, list[str]] = {box: [] for box in ranks}
    for edge in edges:
        above[edge.target].append(edge.source)
        below[edge.source].append(edge.target)
    return above, below


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise
