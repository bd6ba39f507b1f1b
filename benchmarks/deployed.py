"""Networks of the kinds that people deploy, small ones and large ones, each with a batch of its inputs."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from app.lab.suite import Recurrent, mlp
from qat_core import QATConfig, QuantSpec

WORDS, LENGTH, CACHED = 20_000, 32, 64
STATIC = QATConfig(QuantSpec(bits=4), QuantSpec.activation())
WEIGHTS = QATConfig(QuantSpec(bits=4, granularity="per_group", group_size=32))
_relus = partial(mlp, activation=nn.ReLU)


@dataclass(frozen=True)
class Deployed:
    """One network.

    Attributes:
        build: makes it.
        inputs: batch -> what it takes.
        config: how it is quantized.
    """

    build: Callable[[], nn.Module]
    inputs: Callable[[int], tuple[Tensor, ...]]
    config: QATConfig = STATIC


class Block(nn.Module):
    """Self-attention and a feed-forward network: (batch, length, width) -> the same."""

    def __init__(self, width: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)

    def split(self, x: Tensor) -> Tensor:
        """(batch, length, width) -> (batch, heads, length, width / heads)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def attend(self, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        weights = (query @ keys.transpose(-1, -2) / query.shape[-1] ** 0.5).softmax(-1)
        return self.out((weights @ values).transpose(1, 2).flatten(2))

    def forward(self, x: Tensor) -> Tensor:
        y = self.before(x)
        x = x + self.attend(self.split(self.query(y)), self.split(self.key(y)), self.split(self.value(y)))
        return x + self.down(F.gelu(self.up(self.between(x))))


class DecoderStep(Block):
    """One more token, given the keys and values of those before: (batch, 1, width) and a cache -> both."""

    def forward(self, x: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # type: ignore[override]
        y = self.before(x)
        keys = torch.cat([keys, self.split(self.key(y))], 2)
        values = torch.cat([values, self.split(self.value(y))], 2)
        x = x + self.attend(self.split(self.query(y)), keys, values)
        return x + self.down(F.gelu(self.up(self.between(x)))), keys, values


class Classifier(nn.Module):
    """Words (batch, length) -> (batch, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.hidden, self.head = nn.Embedding(WORDS, 256), nn.Linear(256, 512), nn.Linear(512, 10)

    def forward(self, words: Tensor) -> Tensor:
        return self.head(F.relu(self.hidden(self.words(words).mean(1))))


def _cnn(*widths: int) -> nn.Module:
    layers: list[nn.Module] = []
    for before, after in pairwise((3, *widths)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], 10))


def _depthwise() -> nn.Module:
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 3, padding=1), nn.ReLU()]
    for _ in range(3):
        layers += [nn.Conv2d(64, 64, 3, padding=1, groups=64), nn.ReLU(), nn.Conv2d(64, 64, 1), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def _rows(width: int) -> Callable[[int], tuple[Tensor, ...]]:
    return lambda batch: (torch.randn(batch, width),)


def _images(size: int) -> Callable[[int], tuple[Tensor, ...]]:
    return lambda batch: (torch.randn(batch, 3, size, size),)


def _sequence(width: int) -> Callable[[int], tuple[Tensor, ...]]:
    return lambda batch: (torch.randn(batch, LENGTH, width),)


def _step(batch: int) -> tuple[Tensor, ...]:
    cache = (torch.randn(batch, 4, CACHED, 128) for _ in range(2))
    return torch.randn(batch, 1, 512), *cache


DEPLOYED = {
    "MLP, 3 x 64": Deployed(lambda: _relus(64, 64, 64, 8), _rows(64), WEIGHTS),
    "MLP, 3 x 256": Deployed(lambda: _relus(256, 256, 256, 256), _rows(256)),
    "MLP, 4 x 1024": Deployed(lambda: _relus(1024, 1024, 1024, 1024, 1024), _rows(1024)),
    "MLP, 2 x 2048": Deployed(lambda: _relus(2048, 2048, 2048), _rows(2048)),
    "CNN, 32-64-64, 16 x 16": Deployed(lambda: _cnn(32, 64, 64), _images(16)),
    "CNN, 64-128-128, 32 x 32": Deployed(lambda: _cnn(64, 128, 128), _images(32)),
    "depthwise CNN, 64, 32 x 32": Deployed(_depthwise, _images(32)),
    "LSTM, 256": Deployed(lambda: Recurrent(nn.LSTM, 64, 256, 10), _sequence(64), WEIGHTS),
    "GRU, 128": Deployed(lambda: Recurrent(nn.GRU, 64, 128, 10), _sequence(64), WEIGHTS),
    "encoder, 2 x 256": Deployed(lambda: nn.Sequential(Block(256), Block(256)), _sequence(256)),
    "decoder step with cache, 512": Deployed(lambda: DecoderStep(512), _step),
    "embedding classifier, 20,000 x 256": Deployed(
        Classifier, lambda batch: (torch.randint(WORDS, (batch, LENGTH)),), WEIGHTS
    ),
}
