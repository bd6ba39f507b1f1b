"""What test_processes.py runs under torchrun: prepared models in processes that differ in data, amounts and roles."""

import json
import os
import sys
import warnings
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from qat_core import QATConfig, QuantSpec, calibrate, prepare, synchronize

State = dict[str, list[str]]
ROWS = ((32, 20), (7, 32), (16, 1), (9, 0), (30, 31))  # of each step, in each process


def main(out: Path, *scales: str) -> None:
    dist.init_process_group("gloo", timeout=timedelta(seconds=60))
    rank = dist.get_rank()
    for scale in scales:
        states = {run.__name__: run(scale, rank) for run in RUNS}
        (out / f"{scale}-{rank}.json").write_text(json.dumps(states))
    dist.barrier()
    dist.destroy_process_group()
    os._exit(0)  # threads of gloo that are still at work would abort a process that ends in the usual way


def trained(scale: str, rank: int) -> State:
    """Fifty steps in DDP."""
    model = start(scale)
    train(DistributedDataParallel(model), rank, 50)
    return digits(model)


def few_steps(scale: str, rank: int) -> State:
    """Five steps in DDP."""
    model = start(scale)
    train(DistributedDataParallel(model), rank, 5)
    return digits(model)


def sharded(scale: str, rank: int) -> State:
    """The same in FSDP2, each layer and the rest."""
    model = start(scale)
    for layer in model:
        fully_shard(layer)
    fully_shard(model)
    train(model, rank, 5)
    return digits(model)


def synchronized(scale: str, rank: int) -> State:
    """Each process calibrates with batches of its own, and then they compare."""
    model = start(scale)
    calibrate(model, [torch.full((4, 4), 1.0 + rank + batch) for batch in range(3 - rank)])
    if rank == 0:
        calibrate(start(scale), [torch.ones(4, 4)])  # alone
        start(scale)(torch.ones(4, 4))
    synchronize(model)
    return digits(model)


def joined(scale: str, rank: int) -> State:
    """Uneven inputs."""
    ddp = DistributedDataParallel(start(scale))
    with ddp.join():
        train(ddp, rank, 4 - rank)
    return digits(ddp.module)


def compiled(scale: str, rank: int) -> State:
    """A compiled model in DDP, whose ranges are compared in the end."""
    model = start(scale)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        train(DistributedDataParallel(torch.compile(model, backend="aot_eager")), rank, 5)
    assert any("call synchronize(model)" in str(warning.message) for warning in told)
    synchronize(model)
    return digits(model)


def accumulated(scale: str, rank: int) -> State:
    """Uneven numbers of batches in a step."""
    ddp = DistributedDataParallel(start(scale))
    optimizer = torch.optim.Adam(ddp.parameters(), lr=1e-2)
    for _ in range(4):
        with ddp.no_sync():
            for _ in range(3 - rank):
                loss(ddp, rank).backward()
        step(ddp, optimizer, rank)
    return digits(ddp.module)


def uneven(scale: str, rank: int) -> State:
    """Batches of different sizes in a step, one of them empty."""
    ddp = DistributedDataParallel(start(scale))
    optimizer = torch.optim.SGD(ddp.parameters(), lr=0.1)
    for step, rows in enumerate(ROWS):
        optimizer.zero_grad()
        x = batch(rows[rank], step, rank)
        (nn.functional.mse_loss(ddp(x), x.sin().sum(1, keepdim=True), reduction="sum") / 32).backward()
        optimizer.step()
    return digits(ddp.module)


class Dropped(nn.Module):
    """Blocks of which a process leaves some out, each its own, as stochastic depth and experts without data do."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(4, 4) for _ in range(4)])

    def forward(self, x: Tensor, kept: list[int]) -> Tensor:
        for place in kept:
            x = x + self.blocks[place](x).tanh()
        return x.sum(1, keepdim=True)


def dropped(scale: str, rank: int) -> State:
    torch.manual_seed(0)
    model = prepare(Dropped(), QATConfig(QuantSpec(scale=scale), QuantSpec.activation(8, scale=scale)))
    ddp = DistributedDataParallel(model, find_unused_parameters=True, broadcast_buffers=False)
    optimizer = torch.optim.SGD(ddp.parameters(), lr=0.1)
    for step in range(6):
        optimizer.zero_grad()
        kept = [place for place in range(4) if (step + place) % (3 + rank)]
        ddp(batch(32, step, rank), kept).square().mean().backward()
        optimizer.step()
    own = ".best."  # of the search among a process's own batches
    return {name: numbers for name, numbers in digits(model).items() if own not in name}


RUNS: tuple[Callable[[str, int], State], ...] = (
    trained,
    few_steps,
    sharded,
    synchronized,
    joined,
    compiled,
    accumulated,
    uneven,
    dropped,
)


def start(scale: str) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 1))
    return prepare(model, QATConfig(QuantSpec(scale=scale), QuantSpec.activation(8, scale=scale)))


def batch(rows: int, step: int, rank: int) -> Tensor:
    return torch.randn(rows, 4, generator=torch.Generator().manual_seed(10 * step + rank)) * (1 + rank)


def train(model: nn.Module, rank: int, steps: int) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    torch.manual_seed(100 + rank)
    for _ in range(steps):
        step(model, optimizer, rank)


def step(model: nn.Module, optimizer: torch.optim.Optimizer, rank: int) -> None:
    optimizer.zero_grad()
    loss(model, rank).backward()
    optimizer.step()


def loss(model: nn.Module, rank: int) -> Tensor:
    x = torch.randn(32, 4) * (1 + 3 * rank)
    return nn.functional.mse_loss(model(x), x.sin().sum(1, keepdim=True))


def digits(model: nn.Module) -> State:
    """Every number to its last bit."""
    whole = {n: t.full_tensor() if isinstance(t, DTensor) else t for n, t in model.state_dict().items()}
    return {name: [v.hex() for v in t.flatten().tolist()] for name, t in whole.items()}


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
