"""Bits where they are needed, within a budget of bytes: `python -m examples.budget`.

Some layers are fragile. `sensitivity` measures each one alone, `suggest` spends the bytes, training heals the rest.
"""

import torch
from torch import nn

from app.lab.data import Digits
from app.lab.models import cnn
from examples.cnn_int8 import accuracy, train
from export import export_onnx
from qat_core import QATConfig, QuantSpec, prepare, sensitivity, suggest

torch.manual_seed(0)
digits = Digits.load()
model = train(cnn(), steps=300)


def loss(network: nn.Module) -> float:
    with torch.no_grad():
        return nn.functional.cross_entropy(network(digits.x), digits.y).item()


rows = sensitivity(model, loss, QATConfig(QuantSpec(bits=2)), bits=(2, 3, 4, 8), progress=False)
for row in rows:
    print(f"{row.name}: " + ", ".join(f"{value:.3f} at {bits:g} bits" for bits, value in row.by_bits.items()))
weights = sum(row.elements for row in rows)
mixed = suggest(rows, budget_bytes=weights * 9 // 32)  # 2.25 bits a weight, on average

network = prepare(model, mixed)
before = accuracy(network)
train(network, steps=300)
print(f"accuracy in float32 {accuracy(model):.4f}, rounded {before:.4f}, trained {accuracy(network):.4f}")
export_onnx(network, digits.test_x[:64], "budget.onnx")
