"""What test_processes.py runs under torchrun: a prepared model in DDP on data that differs between the ranks."""

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from qat_core import QATConfig, QuantSpec, prepare


def main(out: Path, *scales: str) -> None:
    dist.init_process_group("gloo")
    for scale in scales:
        (out / f"{scale}-{dist.get_rank()}.json").write_text(json.dumps(trained(scale, dist.get_rank())))
    dist.destroy_process_group()


def trained(scale: str, rank: int) -> dict[str, list[str]]:
    """The state after fifty steps, every number to its last bit."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 1))
    prepared = prepare(model, QATConfig(QuantSpec(scale=scale), QuantSpec.activation(8, scale=scale)))
    ddp = DistributedDataParallel(prepared)
    optimizer = torch.optim.Adam(ddp.parameters(), lr=1e-2)
    torch.manual_seed(100 + rank)
    for _ in range(50):
        x = torch.randn(32, 4) * (1 + 3 * rank)
        optimizer.zero_grad()
        nn.functional.mse_loss(ddp(x), x.sin().sum(1, keepdim=True)).backward()
        optimizer.step()
    return {name: [v.hex() for v in t.flatten().tolist()] for name, t in prepared.state_dict().items()}


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
