"""The graph of a file as an SVG picture: where codes become floats, and what reads them.

The picture needs nothing but a browser. Its colours can be set from outside through CSS variables, so that it fits a
page that it is put into; by itself it is dark on white.
"""

from dataclasses import dataclass, field

import onnx
from onnx import TensorProto

from export.read.codes import FLOAT_BITS
from export.read.draw.layout import Edge, layered
from export.read.draw.svg import Element, Picture
from export.read.graph import QDQ, Graph

MARGIN, ARROW = 12.0, 7.0
PADDING, LINE = 12.0, 17.0
TITLE_WIDTH, TEXT_WIDTH = 7.4, 6.3  # pixels a character, at most
SPINE = 50.0  # how much straighter the way of the data is drawn than that of the weights
LONGEST = 30  # characters of a line
NOTES = {"scale": "scale", "zero_point": "zero point"}
STYLE = """
.onnx-graph { font-family: ui-sans-serif, system-ui, "Segoe UI", Roboto, Arial, sans-serif; }
.onnx-graph text { fill: var(--ink, #0f172a); font-size: 12px; }
.onnx-graph .title { font-size: 13px; font-weight: 600; }
.onnx-graph .note { fill: var(--ink-soft, #475569); }
.onnx-graph rect { fill: var(--graph-box, #f8fafc); stroke: var(--dots, #64748b); stroke-width: 1; }
.onnx-graph .background { fill: var(--graph-background, #ffffff); stroke: none; }
.onnx-graph .codes rect { stroke: var(--qat, #15803d); stroke-width: 2; }
.onnx-graph .float rect { stroke: var(--problem, #b91c1c); stroke-width: 2; stroke-dasharray: 5 3; }
.onnx-graph .qdq rect { stroke: var(--qat, #15803d); stroke-dasharray: 2 3; }
.onnx-graph .end rect { fill: none; stroke: none; }
.onnx-graph path { fill: none; stroke: var(--dots, #64748b); stroke-width: 1.5; }
.onnx-graph path.integer { stroke: var(--qat, #15803d); stroke-width: 4; }
.onnx-graph polygon { fill: var(--dots, #64748b); }
.onnx-graph polygon.integer { fill: var(--qat, #15803d); }
"""


@dataclass
class _Box:
    """One box: `kind` is "op", "qdq", "codes", "float" or "end"."""

    kind: str
    title: str
    notes: list[str] = field(default_factory=list)

    @property
    def size(self) -> tuple[float, float]:
        widths = [TITLE_WIDTH * len(self.title), *(TEXT_WIDTH * len(note) for note in self.notes)]
        return max(widths) + 2 * PADDING, LINE * (1 + len(self.notes)) + PADDING

    @property
    def words(self) -> str:
        return ", ".join([self.title, *self.notes])


def graph_svg(graph: Graph, name: str) -> str:
    """A graph from its inputs down to its outputs, called `name` in words.

    Weights that are codes have a box of their own; scales, zero points and biases are named where they are read.
    """
    boxes, edges, integer = _boxes_and_edges(graph)
    layout = layered({key: box.size for key, box in boxes.items()}, edges)

    width, height = layout.width + 2 * MARGIN, layout.height + 2 * MARGIN
    picture = Picture("onnx-graph", width, height, f"The graph of {name}", _in_words(boxes, edges), STYLE)
    inside = picture.add("g", transform=f"translate({MARGIN:.0f} {MARGIN:.0f})")
    for points, is_integer in zip(layout.paths, integer, strict=True):
        _draw_edge(inside, points, "integer" if is_integer else "number")
    for key, box in boxes.items():
        _draw_box(inside, box, *layout.centres[key])
    return str(picture)


def _boxes_and_edges(graph: Graph) -> tuple[dict[str, _Box], list[Edge], list[bool]]:
    """Boxes in an order in which each comes before its readers, edges, and which edges carry codes."""
    roles, tensors = graph.roles, graph.tensors
    boxes: dict[str, _Box] = {}
    producers: dict[str, str] = {}
    carriers: set[str] = set()  # boxes that hand codes on
    weights: set[str] = set()  # boxes that no input reaches
    codes = graph.unpacking.union(*(lookup.codes for lookup in graph.lookups.values()))
    edges, integer = [], []
    for value in graph.model.graph.input:
        if value.name not in tensors:
            producers[value.name] = f"in {value.name}"
            boxes[producers[value.name]] = _Box("end", _short(value.name), [_type_of(value)])
    for index, node in enumerate(graph.nodes):
        key = f"op {index}"
        box = _Box("qdq" if node.op_type in QDQ else "op", _short(node.op_type))
        scope = node.name.rpartition("/")[0]
        if scope and box.kind == "op":
            box.notes.append(_short(scope))
        read = []
        for name in dict.fromkeys(name for name in node.input if name):
            tensor = tensors.get(name)
            if tensor is None:
                read.append(producers.get(name, ""))
            elif roles.get(name) == "codes" or (name not in roles and len(tensor.dims) > 1 and _is_float(tensor)):
                constant = f"w {name}"
                if constant not in boxes:
                    kind = "codes" if roles.get(name) == "codes" else "float"
                    boxes[constant] = _Box(kind, _short(name), [_shape_of(tensor)])
                    weights.add(constant)
                read.append(constant)
            elif roles.get(name) or _is_float(tensor):
                label = NOTES.get(roles.get(name, ""), name.removeprefix(f"{scope}."))
                box.notes.append(_short(f"{label} {_shape_of(tensor)}"))
        read = [source for source in read if source in boxes]
        if read and weights.issuperset(read):
            weights.add(key)
        boxes[key] = box
        if node.op_type == "QuantizeLinear" or not codes.isdisjoint(node.output):
            carriers.add(key)
        for source in read:
            edges.append(Edge(source, key, 1.0 if source in weights else SPINE))
            integer.append(boxes[source].kind == "codes" or source in carriers)
        producers.update(dict.fromkeys(node.output, key))
    for value in graph.model.graph.output:
        if producers.get(value.name) in boxes:
            boxes[f"out {value.name}"] = _Box("end", _short(value.name), [_type_of(value)])
            edges.append(Edge(producers[value.name], f"out {value.name}", SPINE))
            integer.append(False)
    return boxes, edges, integer


def _in_words(boxes: dict[str, _Box], edges: list[Edge]) -> str:
    """The same for those who do not see it: what each box reads."""
    sources: dict[str, list[str]] = {}
    for edge in edges:
        sources.setdefault(edge.target, []).append(boxes[edge.source].title)
    read = [f"{box.words} reads {' and '.join(sources[key])}" for key, box in boxes.items() if key in sources]
    return "; ".join(read) + "."


def _draw_box(parent: Element, box: _Box, x: float, y: float) -> None:
    width, height = box.size
    group = parent.add("g", class_=box.kind)
    group.add("title", box.words)
    left, top = x - width / 2, y - height / 2
    group.add("rect", x=left, y=top, width=width, height=height, rx=6)
    for index, line in enumerate([box.title, *box.notes]):
        baseline = top + PADDING / 2 + LINE * (index + 0.75)
        group.add("text", line, x=x, y=baseline, text_anchor="middle", class_="note" if index else "title")


def _draw_edge(parent: Element, points: list[tuple[float, float]], kind: str) -> None:
    """Vertical where it leaves, passes and arrives, with an arrow head."""
    (x, y), *others = points
    path = f"M{x:.1f} {y:.1f}"
    for index, (next_x, next_y) in enumerate(others):
        end = next_y - (ARROW if index == len(others) - 1 else 0)
        middle = (y + end) / 2
        path += f"C{x:.1f} {middle:.1f} {next_x:.1f} {middle:.1f} {next_x:.1f} {end:.1f}"
        x, y = next_x, end
    parent.add("path", class_=kind, d=path)
    head = [(x - ARROW / 2, y), (x + ARROW / 2, y), (x, y + ARROW)]
    parent.add("polygon", class_=kind, points=" ".join(f"{a:.1f},{b:.1f}" for a, b in head))


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2 - 1]}…{text[-LONGEST // 2 :]}"


def _is_float(tensor: TensorProto) -> bool:
    return tensor.data_type in FLOAT_BITS


def _shape_of(tensor: TensorProto) -> str:
    return f"{TensorProto.DataType.Name(tensor.data_type)} {' x '.join(map(str, tensor.dims))}".strip()


def _type_of(value: onnx.ValueInfoProto) -> str:
    kind = value.type.tensor_type
    sizes = [dim.dim_param or str(dim.dim_value) for dim in kind.shape.dim]
    return _short(f"{TensorProto.DataType.Name(kind.elem_type)} {' x '.join(sizes)}".strip())
