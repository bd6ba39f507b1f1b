"""What a training step of real networks costs: `python -m benchmarks.zoo.steps`, in the zoo's environment.

Two blocks of GPT-2, all-MiniLM-L6-v2 with its embeddings, and ResNet-18 at 64 x 64, each prepared beside its float twin
in one process on one thread: pairs of steps, one after the other; the median of the pairs' ratios and their quartiles.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import timm
import torch
import transformers
from torch import Tensor, nn

from app.lab.sentences import Encoder
from benchmarks.timing import paired_ratio
from qat_core import QATConfig, QuantSpec, prepare

PAIRS = 13
LEARNED = QuantSpec(scale="learned")
RECIPES = {
    "W4": QATConfig(),
    "W4 learned": QATConfig(LEARNED),
    "W4 mse": QATConfig(QuantSpec(scale="mse")),
    "W4A8": QATConfig(QuantSpec(), QuantSpec.activation()),
    "W4A8 learned": QATConfig(LEARNED, QuantSpec.activation(scale="learned")),
}

Call = Callable[[nn.Module], Tensor]


def two_blocks() -> tuple[nn.Module, Call]:
    quiet = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "use_cache": False}
    ids = torch.randint(0, 1000, (4, 128))
    config: Any = transformers.GPT2Config(n_layer=2, vocab_size=1000, n_positions=256, **quiet)
    return transformers.GPT2Model(config), lambda model: model(ids).last_hidden_state


def encoder() -> tuple[nn.Module, Call]:
    words = torch.randint(0, 30_000, (8, 64))
    batch = {"input_ids": words, "attention_mask": torch.ones_like(words)}
    return Encoder().train(), lambda model: model(**batch)


def resnet() -> tuple[nn.Module, Call]:
    images = torch.randn(16, 3, 64, 64)
    return timm.create_model("resnet18", num_classes=10), lambda model: model(images)


NETWORKS = {"GPT-2, 2 blocks, 4 x 128": two_blocks, "MiniLM, 8 x 64": encoder, "ResNet-18, 16 x 64 x 64": resnet}


def step(model: nn.Module, adam: torch.optim.Optimizer, call: Call) -> None:
    adam.zero_grad()
    call(model).square().mean().backward()
    adam.step()


if __name__ == "__main__":
    torch.set_num_threads(1)
    for title, made in NETWORKS.items():
        network, call = made()
        for recipe, config in RECIPES.items():
            float32, quantized = (
                partial(step, model, torch.optim.AdamW(model.parameters(), 1e-4), call)
                for model in (network, prepare(network, config))
            )
            found = paired_ratio(float32, quantized, PAIRS, "cpu")
            print(f"{title}: {recipe} {found['ratio']:.2f} ({found['low']:.2f} to {found['high']:.2f})", flush=True)
