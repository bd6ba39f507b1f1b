"""The loops that people train in: a prepared model goes through each as any other model does, or a check here fails.

Part of `make zoo`, in its environment: transformers, peft, lightning, accelerate and timm are too heavy for the tests.
"""

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from export import check_parity, export_onnx
from qat_core import QATConfig, QuantSpec

LEARNED = QATConfig(QuantSpec(4, scale="learned"), QuantSpec.activation(8, scale="learned"))
MEASURED = QATConfig(QuantSpec(4), QuantSpec.activation(8))
STEPS, HALF = 12, 6


def same_numbers(a: nn.Module, b: nn.Module) -> None:
    """To the last bit, whatever a state_dict has."""
    left, right = a.state_dict(), b.state_dict()
    assert left.keys() == right.keys()
    for name, tensor in left.items():
        assert torch.equal(tensor, right[name]), f"{name} differs by {(tensor - right[name]).abs().max():.3g}"


def goes_out(model: nn.Module, inputs: Any) -> None:
    """The file answers as the model."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        export_onnx(model.eval(), inputs, path)
        check_parity(model, path, inputs).raise_if_broken()
