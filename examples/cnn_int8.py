"""A CNN for handwritten digits in eight bits, without training them: `python -m examples.cnn_int8`.

At eight bits calibration is enough (PTQ). Weights and activations are integers, so onnxruntime runs integer kernels.
"""

import torch
from torch import nn

from app.lab.data import Digits
from app.lab.models import cnn
from export import export_onnx, latency
from qat_core import QATConfig, QuantSpec, calibrate, prepare


def train(network: nn.Module, steps: int) -> nn.Module:
    digits, optimizer = Digits.load(), torch.optim.Adam(network.train().parameters(), lr=2e-3)
    for _ in range(steps):
        batch = torch.randint(len(digits.x), (64,))
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(digits.x[batch]), digits.y[batch]).backward()
        optimizer.step()
    return network.eval()


@torch.no_grad()
def accuracy(network: nn.Module) -> float:
    digits = Digits.load()
    return (network.eval()(digits.test_x).argmax(1) == digits.test_y).float().mean().item()


def main() -> None:
    torch.manual_seed(0)
    model, digits = train(cnn(), steps=300), Digits.load()
    quantized = prepare(model, QATConfig(QuantSpec(bits=8), activation=QuantSpec.activation(8)))
    calibrate(quantized, digits.x.split(256))
    print(f"accuracy in float32 {accuracy(model):.4f}, in eight bits {accuracy(quantized):.4f}")
    print(export_onnx(quantized, digits.test_x[:64], "cnn_int8.onnx"))
    for row in latency("cnn_int8.onnx", batch=64).rows:
        print(f"{row.name}: {row.milliseconds:.2f} ms, {row.speed:.2f} times as fast as float32")


if __name__ == "__main__":
    main()
