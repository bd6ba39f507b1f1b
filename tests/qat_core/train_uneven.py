"""What test_processes.py runs under torchrun: processes that have different amounts of data, or different roles."""

import json
import sys
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from qat_core import QATConfig, QuantSpec, calibrate, prepare, synchronize


def main(out: Path, scale: str) -> None:
    dist.init_process_group("gloo", timeout=timedelta(seconds=60))
    rank = dist.get_rank()
    states = {}

    model = start(scale)  # each process calibrates with batches of its own, and then they compare
    calibrate(model, [torch.full((4, 4), 1.0 + rank + batch) for batch in range(3 - rank)])
    if rank == 0:
        calibrate(start(scale), [torch.ones(4, 4)])  # alone
        start(scale)(torch.ones(4, 4))
    synchronize(model)
    states["synchronized"] = digits(model)

    for name in ("joined", "accumulated"):
        ddp = DistributedDataParallel(start(scale))
        optimizer = torch.optim.Adam(ddp.parameters(), lr=1e-2)
        torch.manual_seed(100 + rank)
        if name == "joined":
            with ddp.join():
                for _ in range(4 - rank):
                    step(ddp, optimizer, rank)
        else:
            for _ in range(4):
                with ddp.no_sync():
                    for _ in range(3 - rank):
                        loss(ddp, rank).backward()
                step(ddp, optimizer, rank)
        states[name] = digits(ddp.module)

    (out / f"{rank}.json").write_text(json.dumps(states))
    dist.destroy_process_group()


def start(scale: str) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 1))
    return prepare(model, QATConfig(QuantSpec(scale=scale), QuantSpec.activation(8, scale=scale)))


def loss(model: nn.Module, rank: int) -> Tensor:
    x = torch.randn(8, 4) * (1 + 3 * rank)
    return nn.functional.mse_loss(model(x), x.sin().sum(1, keepdim=True))


def step(model: nn.Module, optimizer: torch.optim.Optimizer, rank: int) -> None:
    loss(model, rank).backward()
    optimizer.step()
    optimizer.zero_grad()


def digits(model: nn.Module) -> dict[str, list[str]]:
    return {name: [v.hex() for v in t.flatten().tolist()] for name, t in model.state_dict().items()}


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
