"""Your own module, as a script to run: what the page has chosen is filled in."""

from string import Template
from typing import Any

import gradio as gr

from app.components.code import coloured, spec_source
from app.lab.fit import Settings
from app.runs.messages import to_json
from app.settings import parse_settings

MODULE = Template("""\
import torch
from torch import nn

from export import check_parity, export_onnx
from qat_core import QATConfig, QuantSpec, plan, prepare


class Yours(nn.Module):  # <- your network
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(8, $width)
        self.second = nn.Linear($width, $width)
        self.head = nn.Linear($width, 2)

    def forward(self, x):
        return self.head(self.second(self.first(x).relu()).relu())


torch.manual_seed($seed)
x = torch.randn(512, 8)  # <- your data
y = torch.stack([x[:, 0] * x[:, 1], x[:, 2].sin()], dim=1)

model = Yours()  # <- load your trained weights here
spec = $spec
config = QATConfig(weight=spec)
print(plan(model, config))
model = prepare(model, config)

optimizer = torch.optim.Adam(model.parameters(), lr=$learning_rate)
for step in range(300):  # <- your training loop, as it is
    optimizer.zero_grad()
    loss = nn.functional.mse_loss(model(x), y)
    loss.backward()
    optimizer.step()

export_onnx(model, x, "yours.onnx")  # or an error, and no file
check_parity(model, "yours.onnx", x).raise_if_broken()
""")


def module_source(settings: Settings) -> str:
    """The listing with the settings of the page."""
    return MODULE.substitute(
        width=settings.width,
        seed=settings.seed,
        learning_rate=f"{settings.learning_rate:g}",
        spec=spec_source(settings.config.weight),
    )


def module_frame(*settings: Any) -> Any:
    """What `snippet.js` draws; settings that the page does not offer leave it as it is."""
    try:
        return to_json({"title": "your_module.py", "code": coloured(module_source(parse_settings(*settings)))})
    except ValueError:
        return gr.skip()
