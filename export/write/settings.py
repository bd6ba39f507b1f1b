"""What the receipt says of how a file holds each layer."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from export.write.stored import StoredLayer
from qat_core import QuantSpec


def as_settings(layers: Sequence[StoredLayer]) -> dict[str, Any]:
    """For the receipt: the specs of all layers, with the names of those that share them, and kernels if asked for."""
    settings: dict[str, Any] = {}
    if any(layer.kernel for layer in layers):
        settings["kernels"] = {
            **{layer.name: layer.kernel.as_settings() for layer in layers if layer.kernel},
            **{layer.name: {"kernel": "QDQ", "reason": layer.reason} for layer in layers if layer.reason},
        }
    shared: dict[str, dict[str, Any]] = {}
    for layer in layers:
        specs = {"weight": _changes(layer.layer.quantized_weights()[0][2].spec)}
        if layer.layer.input_quantizer is not None:
            specs["activation"] = _changes(layer.layer.input_quantizer.spec)
        shared.setdefault(repr(specs), {"names": [], **specs})["names"].append(layer.name)
    return {**settings, "layers": list(shared.values())}


def _changes(spec: QuantSpec) -> dict[str, Any]:
    """What differs from QuantSpec's defaults, and the bits."""
    values = {f.name: (getattr(spec, f.name), f.default) for f in fields(spec)}
    return {name: value for name, (value, default) in values.items() if name == "bits" or value != default}
