"""ZOO.md out of results/zoo.json."""

from typing import Any

Row = dict[str, Any]
HEAD = """# The zoo

{count} architectures of transformers, timm, torchvision and torch, small and with random weights, as a newcomer takes
them through the README: `prepare`, two steps, `eval`, `export_onnx(model, example, path)`, and `check_parity` on a
batch of another size and length at four levels of optimization. Beside them `torch.onnx.export(dynamo=True)` of the
float network, with nothing declared, on its own example. `make zoo` writes this page.

{works} of {count} go through at every width measured, and torch exports {torchs} of the {tried} that it was asked for.
An empty place is not measured yet: `make zoo` goes on where it was.
"""
WIDTHS = ("W4", "W4A8", "W8A8")


def page(found: dict[str, dict[str, dict[str, Row]]]) -> str:
    """All rooms, a table each, and below it why what did not work did not."""
    every = [rows for architectures in found.values() for rows in architectures.values()]
    works = sum(all("refused" not in row for width, row in rows.items() if width in WIDTHS) for rows in every)
    asked = [rows["torch"] for rows in every if "torch" in rows]
    torchs = sum("refused" not in row for row in asked)
    lines = [HEAD.format(count=len(every), works=works, torchs=torchs, tried=len(asked))]
    for room, architectures in found.items():
        lines += [f"## {room[0].upper()}{room[1:]}", "", f"| | {' | '.join(WIDTHS)} | torch |", "|---|---|---|---|---|"]
        lines += [
            f"| {name} | {' | '.join(short(rows.get(width)) for width in (*WIDTHS, 'torch'))} |"
            for name, rows in architectures.items()
        ]
        lines += ["", *_reasons(architectures)]
    return "\n".join(lines)


def short(row: Row | None) -> str:
    """One word for a table."""
    if row is None:
        return ""
    return "refused" if "refused" in row else str(row["outcome"])


def _reasons(architectures: dict[str, dict[str, Row]]) -> list[str]:
    reasons: dict[str, list[str]] = {}
    for name, rows in architectures.items():
        for width, row in rows.items():
            if "refused" in row:
                reasons.setdefault(f"{name}: {row['refused'][:300]}", []).append(width)
        left = {part for row in rows.values() for part in row.get("in_float", [])}
        if left:
            reasons.setdefault(f"{name}: in float, as its layers do not alone read them: {', '.join(sorted(left))}", [])
    return [f"- {reason}" + (f" ({', '.join(widths)})" if widths else "") for reason, widths in reasons.items()] + [""]
