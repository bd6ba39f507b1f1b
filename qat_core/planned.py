"""What a plan says of each layer, and the table that it is printed as."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from qat_core.spec import QATConfig, QuantSpec


@dataclass(frozen=True)
class PlannedLayer:
    """One layer with parameters of its own.

    Attributes:
        name: in the model; "" is the model itself.
        owner: the first layer that has its weight, where layers share one; else its own name.
        kind: its class.
        shapes: of the weights that are quantized, or of all its parameters where none is.
        config: what applies to it, or None when it stays in float.
        input_spec: how its input is quantized, or None.
        reason: why it stays in float; empty when it does not.
        bytes_before, bytes_after: of all its parameters, scales and zero points included.
        parameters: how many it has that no layer before it has.
        multiplications: by its weights for the batch that `plan` was given, or None.
    """

    name: str
    owner: str
    kind: str
    shapes: tuple[tuple[int, ...], ...]
    config: QATConfig | None
    input_spec: QuantSpec | None
    reason: str
    bytes_before: int
    bytes_after: int
    parameters: int
    multiplications: int | None = None


@dataclass(frozen=True)
class Plan:
    """Every layer that has parameters, in the order of the model; printed as a table.

    Attributes:
        layers: them.
        multiplications: of matrix products, convolutions and attention for the batch that `plan` was given, those
            without weights included, or None.
        products: module -> those that its own forward makes without a layer's weights, which stay in float: scores and
            values of attention, and whatever else it multiplies.
    """

    layers: tuple[PlannedLayer, ...]
    multiplications: int | None = None
    products: Mapping[str, int] = field(default_factory=dict)

    @property
    def quantized(self) -> tuple[PlannedLayer, ...]:
        """The layers that would be quantized."""
        return tuple(layer for layer in self.layers if layer.config is not None)

    @property
    def bytes_before(self) -> int:
        return sum(layer.bytes_before for layer in self.layers)

    @property
    def bytes_after(self) -> int:
        return sum(layer.bytes_after for layer in self.layers)

    def share_of_parameters(self, layer: PlannedLayer) -> float:
        """Of all in the model, from 0 to 1."""
        return layer.parameters / max(sum(planned.parameters for planned in self.layers), 1)

    def share_of_multiplications(self, layer: PlannedLayer) -> float | None:
        """Of all for the batch, from 0 to 1, or None."""
        if layer.multiplications is None or not self.multiplications:
            return None
        return layer.multiplications / self.multiplications

    def __str__(self) -> str:
        header = ("layer", "kind", "shape", "bits", "granularity", "bytes", "after")
        rows = [header, *map(self._cells, self.layers)]
        for name, count in self.products.items():
            share = f"{count / (self.multiplications or count):.1%} of the multiplications"
            rows.append(("(no weights)", "", "", "float", f"in {name or 'the model'}: {share}", "", ""))
        rows.append(("total", "", "", "", "", f"{self.bytes_before:,}", f"{self.bytes_after:,}"))
        widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
        return "\n".join(line.rstrip() for line in lines)

    def _cells(self, layer: PlannedLayer) -> tuple[str, ...]:
        shape = ", ".join(" x ".join(map(str, s)) or "scalar" for s in layer.shapes)
        name = layer.name or "(model)"
        before, after = f"{layer.bytes_before:,}", f"{layer.bytes_after:,}"
        if layer.config is None:
            shares = f"{self.share_of_parameters(layer):.1%} of the parameters"
            if (share := self.share_of_multiplications(layer)) is not None:
                shares += f", {share:.1%} of the multiplications"
            return name, layer.kind, shape, "float", f"{layer.reason} ({shares})", before, after
        spec, activation = layer.config.weight, layer.input_spec
        bits = f"W{spec.bits:g}" + (f" A{activation.bits:g}" if activation else "")
        granularity = spec.granularity + (f" {spec.group_size}" if spec.granularity == "per_group" else "")
        return name, layer.kind, shape, bits, granularity, before, after
