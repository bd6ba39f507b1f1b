"""Where an experiment computes: one rule for the page, the terminal and the sweeps.

The best that is there is cuda, then mps, then xpu, then the CPU. Only on ZeroGPU the CPU comes first: the GPU there is
lent for seconds, from the visitor's own quota, so whoever wants it says so.
"""

import os
import platform
from functools import cache
from pathlib import Path

import torch

CPU = "cpu"
AUTO = "auto"


def here() -> tuple[str, ...]:
    """The devices of this machine, the best first; the CPU is always one."""
    if lends():
        return CPU, "cuda"
    there = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "xpu": torch.xpu.is_available(),
    }
    return *(kind for kind, usable in there.items() if usable), CPU


def lends() -> bool:
    """Whether GPUs are lent here for seconds, as ZeroGPU does, and this process itself has none."""
    return bool(os.environ.get("SPACES_ZERO_GPU"))


def check(name: str) -> str:
    """The named device, or with "auto" the best of this machine.

    Raises:
        ValueError: this machine has no such device.
    """
    found = here()
    if name == AUTO:
        return found[0]
    if name not in found:
        raise ValueError(f"device={name!r} is not there; this machine has {', '.join(found)}")
    return name


def resident(name: str) -> str:
    """Where this process itself computes what is asked of a device: there, or on the CPU where GPUs are lent."""
    return CPU if lends() else name


def place(name: str) -> torch.device:
    """Where tensors of a device are."""
    return torch.device(name)


@cache
def title(name: str) -> str:
    """What people call a device, such as "NVIDIA H100 80GB HBM3" or "CPU (AMD EPYC)"."""
    if name == CPU:
        return f"CPU ({processor()})"
    if lends():
        return "GPU, lent by the second"
    if name == "cuda":
        return torch.cuda.get_device_name()
    return {"mps": "Apple GPU", "xpu": "Intel GPU"}.get(name, name)


def processor() -> str:
    """What the processor calls itself, as far as it can be learned."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()


def start(name: str) -> None:
    """Wake a device up, which takes CUDA seconds the first time."""
    torch.zeros(1, device=place(name))
