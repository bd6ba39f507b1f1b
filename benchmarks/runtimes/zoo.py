"""Some ninety small networks, so that each form of file that is written is among them.

Rows are independent of each other, so that a file can be asked with one row and with 256.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from qat_core import QATConfig, QuantSpec, calibrate, prepare

ROWS = 256
WORDS, LENGTH = 40, 12
SIX = (  # one of each trouble
    "mlp-w2-per_channel",
    "ort-w4-dynamic32",
    "mlp-mixed-widths-powers",
    "cnn-w8a8-powers",
    "lstm-w4",
    "transformer-w8a8",
)


@dataclass(frozen=True)
class Kind:
    """One network and how it is written.

    Attributes:
        build: makes the float network.
        config: what is quantized, and how.
        inputs: makes so many rows.
        options: of `export_onnx`.
    """

    build: Callable[[], nn.Module]
    config: QATConfig
    inputs: Callable[[int], Tensor]
    options: dict[str, Any] = field(default_factory=dict)

    def make(self) -> tuple[nn.Module, Tensor]:
        """The prepared network, and rows that it was calibrated with in part; the same each time."""
        torch.manual_seed(0)
        model, x = self.build().eval(), self.inputs(ROWS)
        return calibrate(prepare(model, self.config), [x[:64]]).eval(), x


class Tagger(nn.Module):
    """A table of words, a recurrence, three numbers for each word."""

    def __init__(self, kind: type[nn.LSTM] | type[nn.GRU]) -> None:
        super().__init__()
        self.words, self.memory, self.tags = nn.Embedding(WORDS, 16), kind(16, 16, batch_first=True), nn.Linear(16, 3)

    def forward(self, words: Tensor) -> Tensor:
        answer: Tensor = self.tags(self.memory(self.words(words))[0])
        return answer


class Encoder(nn.Module):
    """A table of words, a block of a Transformer, an answer for each word."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.head = nn.Embedding(WORDS, 32), nn.Linear(32, 5)
        self.block = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, dropout=0.0)

    def forward(self, words: Tensor) -> Tensor:
        answer: Tensor = self.head(self.block(self.words(words)))
        return answer


class Masked(nn.Module):
    """Truth values between codes."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(64, 64), nn.Linear(64, 64)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.a(x))
        return torch.where(x > 0.1, self.b(x), x)


def mlp(*widths: int, limit: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), limit()]
    return nn.Sequential(*layers[:-1])


def cnn() -> nn.Sequential:
    images = nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.ReLU6()
    return nn.Sequential(*images, nn.Conv2d(8, 24, 1), nn.ReLU(), nn.Flatten(), nn.Linear(216, 10))


def upsampler() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.ConvTranspose2d(8, 6, 3, 2), nn.ReLU(), nn.Conv2d(6, 3, 1))


def numbers(*shape: int) -> Callable[[int], Tensor]:
    return lambda rows: torch.randn(rows, *shape)


def words(rows: int) -> Tensor:
    return torch.randint(WORDS, (rows, LENGTH))


def weights(bits: float, granularity: Any = "per_channel", **changes: Any) -> QATConfig:
    return QATConfig(QuantSpec(bits, granularity, **changes))


def static(weight_bits: float, bits: float, powers: bool = False, **overrides: QATConfig | None) -> QATConfig:
    weight = QuantSpec(weight_bits, power_of_two=powers)
    return QATConfig(weight, QuantSpec.activation(bits, power_of_two=powers), overrides)


def dynamic(weight_bits: float, group: int = 32) -> QATConfig:
    activation = QuantSpec(8, "per_group", group_size=group, dynamic=True)
    return QATConfig(QuantSpec(weight_bits, "per_group", group_size=group), activation)


def kinds() -> dict[str, Kind]:
    """Name -> network, in the order of the table."""
    return dict(_all())


def _all() -> Iterator[tuple[str, Kind]]:
    def small() -> nn.Module:
        return mlp(32, 64, 64, 19)

    def wide() -> nn.Module:
        return mlp(128, 128, 61)

    rows, wide_rows, images = numbers(32), numbers(128), numbers(3, 8, 8)
    for bits in (1.58, 2, 3, 4, 8):
        for granularity in ("per_tensor", "per_channel", "per_group"):
            yield f"mlp-w{bits}-{granularity}", Kind(small, weights(bits, granularity), rows)
    for bits in (2, 4):
        yield f"mlp-w{bits}-half-shift", Kind(small, weights(bits, half_shift=True), rows)
    yield "mlp-w4-asymmetric", Kind(small, weights(4, symmetric=False), rows)
    for bits in (2, 4):
        yield f"mlp-w{bits}-opset25", Kind(small, weights(bits), rows, {"opset_version": 25})
    yield "mlp-w2-opset21", Kind(small, weights(2), rows, {"opset_version": 21})

    ort = {"flavor": "ort"}
    for bits in (1.58, 3, 4):
        yield f"ort-w{bits}", Kind(wide, weights(bits, "per_group"), wide_rows, ort)
    yield "ort-w4-asymmetric", Kind(wide, weights(4, "per_group", symmetric=False), wide_rows, ort)
    for bits in (1.58, 2, 4, 8):
        yield f"ort-w{bits}-dynamic32", Kind(wide, dynamic(bits), wide_rows, ort)
    yield "ort-w4-dynamic128", Kind(wide, dynamic(4, 128), wide_rows, ort)
    yield "ort-w4-dynamic32-opset25", Kind(wide, dynamic(4), wide_rows, {**ort, "opset_version": 25})
    for bits in (4, 8):
        yield f"qdq-w{bits}-dynamic32", Kind(wide, dynamic(bits), wide_rows)

    for powers in ("", "-powers"):
        for weight_bits, bits in ((4, 8), (8, 8), (2, 8), (4, 4), (1.58, 4), (8, 4)):
            name = f"mlp-w{weight_bits}a{bits}{powers}"
            yield name, Kind(small, static(weight_bits, bits, bool(powers)), rows)
    int8 = {"storage": "int8"}
    yield "mlp-w4a8-int8", Kind(wide, static(4, 8), wide_rows, int8)
    yield "mlp-w4a8-powers-int8", Kind(wide, static(4, 8, True), wide_rows, int8)
    packed = {"storage": "packed"}
    yield "mlp-w4a8-packed", Kind(wide, static(4, 8), wide_rows, packed)
    yield "mlp-w6a8-packed", Kind(wide, static(6, 8), wide_rows, packed)
    for bits in (1.58, 2, 3, 4, 6):
        yield f"mlp-w{bits}a8-powers-packed", Kind(small, static(bits, 8, True), rows, packed)
    yield "mlp-w8a8-powers-opset25", Kind(small, static(8, 8, True), rows, {"opset_version": 25})
    yield "mlp-w4a4-powers-opset25", Kind(small, static(4, 4, True), rows, {"opset_version": 25})
    mixed = static(4, 4, True, **{"2": static(4, 8, True)})
    yield "mlp-mixed-widths-powers", Kind(small, mixed, rows)
    yield "mlp-relu6-w4a4-powers", Kind(lambda: mlp(32, 64, 64, 19, limit=nn.ReLU6), static(4, 4, True), rows)
    yield "mlp-masked-w4a4-powers", Kind(Masked, static(4, 4, True), numbers(64))
    for features in (17, 31, 49):
        yield (
            f"mlp-{features}-out-w8a8-powers",
            Kind(partial(mlp, 64, features, features), static(8, 8, True), numbers(64)),
        )

    yield "cnn-w4", Kind(cnn, weights(4), images)
    for weight_bits, bits in ((4, 8), (8, 8), (4, 4)):
        yield f"cnn-w{weight_bits}a{bits}", Kind(cnn, static(weight_bits, bits), images)
        yield f"cnn-w{weight_bits}a{bits}-powers", Kind(cnn, static(weight_bits, bits, True), images)
    yield "cnn-w4a8-powers-int8", Kind(cnn, static(4, 8, True), images, int8)
    yield "cnn-w4a8-powers-packed", Kind(cnn, static(4, 8, True), images, packed)
    yield "upsampler-w4", Kind(upsampler, weights(4), images)
    for weight_bits in (4, 8):
        yield f"upsampler-w{weight_bits}a8-powers", Kind(upsampler, static(weight_bits, 8, True), images)

    for bits in (2, 4, 8):
        yield f"embedding-w{bits}", Kind(lambda: nn.Sequential(nn.Embedding(WORDS, 16)), weights(bits), words)
    yield "bag-w4", Kind(lambda: nn.Sequential(nn.EmbeddingBag(WORDS, 16), nn.Linear(16, 4)), weights(4), words)
    yield "lstm-w4", Kind(lambda: Tagger(nn.LSTM), weights(4), words)
    yield "lstm-w4a8", Kind(lambda: Tagger(nn.LSTM), static(4, 8), words)
    yield "lstm-w4a8-packed", Kind(lambda: Tagger(nn.LSTM), static(4, 8), words, packed)
    yield "gru-w8", Kind(lambda: Tagger(nn.GRU), weights(8), words)
    yield "transformer-w4", Kind(Encoder, weights(4), words)
    yield "transformer-w8a8", Kind(Encoder, static(8, 8), words)
    yield "transformer-w4a8-packed", Kind(Encoder, static(4, 8), words, packed)
    yield "transformer-w4-dynamic-ort", Kind(Encoder, dynamic(4), words, ort)
