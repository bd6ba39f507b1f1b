"""Networks built of torch alone; the tests take the quickest of them."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.zoo.architecture import Architecture


class Tagger(nn.Module):
    """Words to tags through a recurrence: (batch, length) -> (batch, length, 5)."""

    def __init__(self, kind: type[nn.LSTM] | type[nn.GRU], **options: bool) -> None:
        super().__init__()
        self.words, self.memory = nn.Embedding(50, 16), kind(16, 12, batch_first=True, num_layers=2, **options)
        self.tags = nn.Linear(24 if options.get("bidirectional") else 12, 5)

    def forward(self, words: Tensor) -> Tensor:
        y: Tensor = self.tags(self.memory(self.words(words))[0])
        return y


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down, self.deep = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.up, self.head = nn.ConvTranspose2d(16, 8, 2, stride=2), nn.Conv2d(16, 2, 1)
        self.norm = nn.GroupNorm(4, 16)

    def forward(self, x: Tensor) -> Tensor:
        near = F.silu(self.down(x))
        far = F.silu(self.norm(self.deep(near)))
        y: Tensor = self.head(torch.cat([near, self.up(far)], 1))
        return y


class Mixture(nn.Module):
    """Every expert answers, and a gate weighs the answers."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(16, 4)
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16)) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        weights = self.gate(x).softmax(-1)
        return x + sum(weights[..., i, None] * expert(x) for i, expert in enumerate(self.experts))


class Recommender(nn.Module):
    """Two tables and a product, as recommenders have them."""

    def __init__(self) -> None:
        super().__init__()
        self.users, self.items = nn.Embedding(40, 8), nn.Embedding(60, 8)
        self.head = nn.Sequential(nn.Linear(17, 16), nn.ReLU(), nn.Linear(16, 1))

    def forward(self, user: Tensor, item: Tensor) -> dict[str, Tensor]:
        u, i = self.users(user), self.items(item)
        score = self.head(torch.cat([u, i, (u * i).sum(-1, keepdim=True)], -1)).squeeze(-1)
        return {"score": score, "likes": score > 0}


class TemporalConvolution(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv1d(4 if i == 0 else 12, 12, 3, dilation=2**i) for i in range(3))
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        for i, layer in enumerate(self.layers):
            x = torch.relu(layer(F.pad(x, (2 * 2**i, 0))))
        y: Tensor = self.head(x.transpose(1, 2))
        return y


class StateSpace(nn.Module):
    """A diagonal linear recurrence, unrolled by a sum over all pairs of times."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.out = nn.Linear(6, 16), nn.Linear(16, 2)
        self.decay = nn.Parameter(torch.rand(16))

    def forward(self, x: Tensor) -> Tensor:
        u, time = self.into(x), torch.arange(x.shape[1])
        ages = (time[:, None] - time).clamp(min=0)
        kernel = torch.exp(-self.decay * ages[..., None]) * (time[:, None] >= time)[..., None]
        y: Tensor = self.out(torch.einsum("tsf,bsf->btf", kernel, u))
        return y


class Attention(nn.Module):
    """Causal attention written out, with its own mask."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out, self.norm = nn.Linear(16, 48), nn.Linear(16, 16), nn.LayerNorm(16)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        q, k, v = self.qkv(self.norm(x)).view(batch, length, 3, 2, 8).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        answer: Tensor = x + self.out(y.transpose(1, 2).reshape(batch, length, width))
        return answer


def convolutional() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(8, 8, 3, groups=8), nn.Hardswish(), nn.Conv2d(8, 16, 1), nn.ReLU6()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.1), nn.Linear(16, 5)),
    )


def generator() -> nn.Module:
    return nn.Sequential(
        *(nn.Unflatten(1, (16, 1, 1)), nn.ConvTranspose2d(16, 8, 4), nn.BatchNorm2d(8), nn.ReLU()),
        *(nn.ConvTranspose2d(8, 3, 4, 2, 1), nn.Tanh()),
    )


def rows(batch: int, _: int) -> Tensor:
    return torch.randn(batch, 16)


def words(batch: int, length: int) -> Tensor:
    return torch.randint(0, 50, (batch, length))


def steps(width: int):  # type: ignore[no-untyped-def]
    return lambda batch, length: torch.randn(batch, length, width)


def series(batch: int, length: int) -> Tensor:
    return torch.randn(batch, 4, length)


def images(batch: int, length: int) -> Tensor:
    return torch.randn(batch, 3, 2 * length, 2 * length)


def volumes(batch: int, length: int) -> Tensor:
    return torch.randn(batch, 1, length, 6, 6)


def source_and_target(batch: int, length: int) -> tuple[Tensor, Tensor]:
    return torch.randn(batch, length, 16), torch.randn(batch, 5, 16)


def pairs(batch: int, _: int) -> dict[str, Tensor]:
    return {"user": torch.randint(0, 40, (batch,)), "item": torch.randint(0, 60, (batch,))}


ZOO = {
    "of torch": {
        "perceptron": Architecture(
            lambda: nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.LayerNorm(32), nn.Linear(32, 4)), rows
        ),
        "convolutions": Architecture(convolutional, images),
        "U-Net": Architecture(UNet, images),
        "generator": Architecture(generator, rows),
        "temporal convolutions": Architecture(TemporalConvolution, series),
        "volumes": Architecture(
            lambda: nn.Sequential(
                nn.Conv3d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(4, 2)
            ),
            volumes,
        ),
        "LSTM": Architecture(lambda: Tagger(nn.LSTM, bidirectional=True), words),
        "GRU": Architecture(lambda: Tagger(nn.GRU), words),
        "attention": Architecture(Attention, steps(16)),
        "TransformerEncoder": Architecture(
            lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 2), steps(16)
        ),
        "Transformer": Architecture(lambda: nn.Transformer(16, 2, 2, 2, 32, batch_first=True), source_and_target),
        "mixture of experts": Architecture(Mixture, steps(16)),
        "state space": Architecture(StateSpace, steps(6)),
        "recommender": Architecture(Recommender, pairs),
    }
}
