"""Four-bit weights on a curve: `python -m examples.linear`.

Prepare, train as ever, export, compare. The file answers as PyTorch does, and says so.
"""

import torch
from torch import nn

from export import audit, check_parity, export_onnx
from qat_core import QATConfig, QuantSpec, calibrate, prepare

torch.manual_seed(0)
x = torch.linspace(-3, 3, 256).unsqueeze(1)  # (256, 1)
y = torch.sin(2 * x)

model = nn.Sequential(nn.Linear(1, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1))
model = prepare(model, QATConfig(QuantSpec(bits=4), activation=QuantSpec.activation(8)))
calibrate(model, [x])

optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=500)
for _ in range(500):
    optimizer.zero_grad()
    loss = nn.functional.mse_loss(model(x), y)
    loss.backward()
    optimizer.step()
    decay.step()

export_onnx(model.eval(), x, "linear.onnx")
report = check_parity(model, "linear.onnx", torch.rand(64, 1) * 6 - 3)
report.raise_if_broken()
print(f"loss {loss.item():.5f}; {audit('linear.onnx').file_bytes:,} bytes; {report}")
