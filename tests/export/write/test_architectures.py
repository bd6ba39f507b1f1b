"""Whole networks, trained a little: the file answers as PyTorch, is as small as it can be and has no float copy."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from export import audit, check_parity, export_onnx
from export.read.distance import output_range
from export.write.tensors import torch_outputs
from qat_core import QATConfig, QuantSpec, calibrate, convert, plan, prepare
from qat_core.fold import fold_batch_norm
from qat_core.layers import quantized_layers

W4 = QATConfig()
W4A8 = QATConfig(QuantSpec(power_of_two=True), QuantSpec.activation(power_of_two=True))
WORDS = 400


class Residual(nn.Module):
    """Two convolutions around, one of them depthwise, with BatchNorm: (n, channels, h, w) -> the same."""

    def __init__(self, channels):
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.pointwise = nn.Conv2d(channels, channels, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)

    def forward(self, x):
        return F.relu(x + self.norm2(self.pointwise(F.relu(self.norm1(self.depthwise(x))))))


def residual_cnn():
    stem = nn.Conv2d(3, 128, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(128), nn.ReLU()
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10)
    model = nn.Sequential(*stem, *(Residual(128) for _ in range(2)), *head)
    model(torch.randn(32, 3, 16, 16))  # statistics for the BatchNorms
    return fold_batch_norm(model.eval())


class UNet(nn.Module):
    """(n, 3, h, w) -> (n, 2, h, w), down to a quarter and up again."""

    def __init__(self):
        super().__init__()
        self.down1, self.down2 = nn.Conv2d(3, 24, 3, padding=1), nn.Conv2d(24, 48, 3, padding=1)
        self.middle = nn.Conv2d(48, 96, 3, padding=1)
        self.up2, self.up1 = nn.ConvTranspose2d(96, 48, 2, 2), nn.ConvTranspose2d(48, 24, 2, 2)
        self.merge2, self.merge1 = nn.Conv2d(96, 48, 3, padding=1), nn.Conv2d(48, 24, 3, padding=1)
        self.head = nn.Conv2d(24, 2, 1)

    def forward(self, x):
        high = F.relu(self.down1(x))
        low = F.relu(self.down2(F.max_pool2d(high, 2)))
        y = F.relu(self.middle(F.max_pool2d(low, 2)))
        y = F.relu(self.merge2(torch.cat([self.up2(y), low], 1)))
        y = F.relu(self.merge1(torch.cat([self.up1(y), high], 1)))
        return self.head(y)


class Encoder(nn.Module):
    """Words with learned positions through a Transformer: (n, length) -> (n, length, 5)."""

    def __init__(self):
        super().__init__()
        self.words, self.positions = nn.Embedding(WORDS, 96), nn.Parameter(torch.randn(32, 96))
        layer = nn.TransformerEncoderLayer(96, 4, 192, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.tags = nn.Linear(96, 5)

    def forward(self, words):
        return self.tags(self.layers(self.words(words) + self.positions[: words.shape[1]]))


class Tagger(nn.Module):
    """(n, length) -> (n, length, 5)."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(WORDS, 64)
        self.memory = nn.LSTM(64, 96, num_layers=2, batch_first=True, bidirectional=True)
        self.tags = nn.Linear(192, 5)

    def forward(self, words):
        return self.tags(self.memory(self.words(words))[0])


class Tied(nn.Module):
    """The next word, scored with the table that the words are looked up in: (n, length) -> (n, length, words)."""

    def __init__(self):
        super().__init__()
        self.words, self.hidden = nn.Embedding(WORDS, 96), nn.Linear(96, 96)
        self.scores = nn.Linear(96, WORDS)
        self.scores.weight = self.words.weight

    def forward(self, words):
        return self.scores(F.relu(self.hidden(self.words(words))))


def images(batch):
    return torch.randn(batch, 3, 16, 16)


def sentences(batch, length):
    return torch.randint(0, WORDS, (batch, length))


ARCHITECTURES = {
    "residual CNN": (residual_cnn, images(6), images(17)),
    "U-Net": (UNet, images(6), images(5)),
    "Transformer encoder": (Encoder, sentences(6, 7), sentences(9, 12)),
    "LSTM tagger": (Tagger, sentences(6, 7), sentences(9, 12)),
    "tied embedding": (Tied, sentences(6, 7), sentences(9, 12)),
}
EXACT = {"residual CNN", "U-Net", "tied embedding"}  # the others compute with exp


def trained(model, config, x):
    """A few steps towards random numbers."""
    model = calibrate(prepare(model, config), [x]).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(3):
        optimizer.zero_grad()
        y = model(x)
        F.mse_loss(y, torch.randn_like(y)).backward()
        optimizer.step()
    return model.eval()


@pytest.mark.parametrize("config", [W4, W4A8], ids=["W4", "W4A8"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_trained_network_in_a_file(tmp_path, name, config):
    build, examples, others = ARCHITECTURES[name]
    torch.manual_seed(0)
    fp32, path = build(), tmp_path / "model.onnx"
    model = trained(fp32, config, examples)
    export_onnx(model, examples, path)

    report = check_parity(model, path, others)
    report.raise_if_broken()
    assert [level.level for level in report.levels] == ["disable_all", "basic", "extended", "all"]
    if config is W4A8 and name in EXACT:
        assert report.outcome == "exact"
    elif config is W4:
        (expected,) = torch_outputs(convert(model), [others])
        assert max(level.max_abs_diff for level in report.levels) <= 2e-6 * output_range(expected)

    found, planned = audit(path), plan(fp32, config)
    codes = {row.name: row.dtype for row in found.rows if row.role == "codes" and row.dtype != "INT32"}
    looked_up = {"UINT8"} if name in ("Transformer encoder", "LSTM tagger") else set()  # two codes in a byte
    assert set(codes.values()) == {"INT4"} | looked_up
    assert len(codes) == sum(len(layer.shapes) for layer in planned.quantized) - (name == "tied embedding")
    assert found.float_matrices == (["positions"] if name == "Transformer encoder" else [])
    with_integer_bias = [layer for layer in quantized_layers(model) if layer[1].has_integer_accumulator()]
    minimum = planned.bytes_after + sum(4 * layer.bias.numel() for _, layer in with_integer_bias)  # scales
    assert sum(row.bytes for row in found.rows) <= 1.03 * minimum + 4096
