"""A quantized tensor as it lies in the file: bytes in order, low nibble first, each with its code and its number.

A nibble is half a byte, one 4-bit code. The first code of a tensor is in the low half of its first byte, the second in
the high half, and so on in row-major order; 2-bit codes lie four to a byte, lowest first.
"""

from collections.abc import Iterator

import numpy as np
from onnx import TensorProto

from export.read.codes import PackedTensor
from export.read.draw.svg import Picture

LINES_SHOWN = 16
MAP_COLUMNS, MAP_ROWS = 64, 64
CELL, LINE, MARGIN, INDENT, GROUP = 9, 22, 16, 150, 250
SQUARE = f"h{CELL - 1}v{CELL - 1}h{1 - CELL}z"
STYLE = """
.nibbles { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
.nibbles text { fill: var(--ink, #0f172a); font-size: 13px; white-space: pre; }
.nibbles .note { fill: var(--ink-soft, #475569); }
.nibbles .heading { font: 600 15px ui-sans-serif, system-ui, "Segoe UI", Roboto, Arial, sans-serif; }
.nibbles .background { fill: var(--graph-background, #ffffff); }
.nibbles .negative { fill: var(--ptq, #b45309); }
.nibbles .positive { fill: var(--fp32, #2563eb); }
.nibbles .zero { fill: var(--rule, #e2e8f0); }
"""


def offset_of(tensor: TensorProto, file: bytes) -> int | None:
    """Where the raw data of an initializer begins in the bytes of its file; None where they are not seen there."""
    message = tensor.SerializeToString()
    begin = file.find(message)
    return begin + message.rindex(tensor.raw_data) if begin >= 0 and tensor.raw_data else None


def nibbles_svg(tensor: PackedTensor, offset: int | None) -> str:
    """The first bytes of a weight, counted from `offset` where that is known, and a map of all its codes."""
    lines, together = list(_lines(tensor, offset or 0)), _together(tensor)
    codes = tensor.codes[: MAP_COLUMNS * MAP_ROWS]
    map_top = MARGIN + LINE * (len(lines) + 5)
    width = 2 * MARGIN + max(INDENT + GROUP * together, CELL * MAP_COLUMNS)
    height = map_top + CELL * -(-len(codes) // MAP_COLUMNS) + MARGIN
    picture = Picture("nibbles", width, height, f"The codes of {tensor.name}", _in_words(tensor, offset), STYLE)

    def write(line: int, x: float, text: str, kind: str) -> None:
        picture.add("text", text, x=MARGIN + x, y=MARGIN + LINE * (line + 0.7), class_=kind)

    write(0, 0, _title(tensor, offset), "heading")
    write(1, 0, f"{'byte':>7}", "note")
    for place in range(together):
        write(1, INDENT + GROUP * place, _heading(tensor.bits, place), "note")
    for line, (byte, numbers) in enumerate(lines, start=2):
        write(line, 0, byte, "note")
        for place, number in enumerate(numbers):
            write(line, INDENT + GROUP * place, number, "number")
    left = tensor.elements - len(lines) * together
    write(len(lines) + 2, 0, f"and {left:,} more" if left > 0 else "", "note")
    which = "All codes" if len(codes) == tensor.elements else f"The first {len(codes):,} codes"
    write(len(lines) + 4, 0, f"{which}, {MAP_COLUMNS} a row", "heading")
    largest = max(int(np.abs(codes).max(initial=1)), 1)
    for code in np.unique(codes).tolist():
        squares = [divmod(place, MAP_COLUMNS) for place in np.flatnonzero(codes == code).tolist()]
        path = "".join(f"M{MARGIN + CELL * x} {map_top + CELL * y}{SQUARE}" for y, x in squares)
        kind = "zero" if code == 0 else "negative" if code < 0 else "positive"
        opacity = 1.0 if code == 0 else 0.15 + 0.85 * abs(code) / largest
        picture.add("path", class_=kind, d=path, fill_opacity=f"{opacity:.2f}").add("title", f"code {code}")
    return str(picture)


def _together(tensor: PackedTensor) -> int:
    """Codes in a byte, or one in a word of several bytes."""
    return max(8 // tensor.bits, 1)


def _heading(bits: int, place: int) -> str:
    """Above the columns of codes, as wide as these."""
    where = {2: f"bits {2 * place}-{2 * place + 1}", 4: ("low", "high")[place % 2], 8: "byte"}.get(bits, "word")
    return f"{where:<{min(bits, 8)}} {'code':>4} {'number':>12}" if bits <= 8 else f"{'code':>12} {'number':>12}"


def _lines(tensor: PackedTensor, offset: int) -> Iterator[tuple[str, list[str]]]:
    """For each of the first bytes, or words, its place and digits, and the codes in it."""
    step, together, bits = max(tensor.bits // 8, 1), _together(tensor), min(tensor.bits, 8)
    shown = LINES_SHOWN * together
    codes, values = tensor.codes[:shown].tolist(), tensor.values[:shown].tolist()
    numbers = [
        f"{code & (2**bits - 1):0{bits}b} {code:>4} {value:>12.6g}" for code, value in zip(codes, values, strict=True)
    ]
    if tensor.bits > 8:
        numbers = [f"{code:>12,} {value:>12.6g}" for code, value in zip(codes, values, strict=True)]
    for line in range(-(-len(codes) // together)):
        data = tensor.data[line * step : (line + 1) * step]
        yield f"{offset + line * step:>7,}  0x{data.hex()}", numbers[line * together : (line + 1) * together]


def _title(tensor: PackedTensor, offset: int | None) -> str:
    where = "" if offset is None else f" from byte {offset:,} of the file"
    return f"{tensor.name}: {tensor.dtype} {' x '.join(map(str, tensor.shape))}, {len(tensor.data):,} bytes{where}"


def _in_words(tensor: PackedTensor, offset: int | None) -> str:
    pairs = zip(tensor.codes[:LINES_SHOWN].tolist(), tensor.values[:LINES_SHOWN].tolist(), strict=True)
    first = ", ".join(f"{code} for {value:.6g}" for code, value in pairs)
    return f"{_title(tensor, offset)}. The first codes and the numbers they stand for: {first}."
