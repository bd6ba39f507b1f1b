"""The one point where processes that ran alone compare the ranges they saw."""

import torch
import torch.distributed as dist
from torch import Tensor, nn

from qat_core.agreement import is_of_activations
from qat_core.lsq import RATE
from qat_core.observer import MovingRange


@torch.no_grad()
def synchronize(model: nn.Module) -> nn.Module:
    """Give all processes the widest of their ranges of activations; every one of them must call it.

    `DistributedDataParallel` and FSDP2 need this only after a calibration of which each process had a part. Where calls
    are not known to be common, as in loops of your own, and in compiled models, it is for the end of an epoch, and
    before saving.

    Args:
        model: prepared; changed in place and returned. A process that has seen no data gets what the others saw.

    Raises:
        ValueError: there is one process only, or the models differ; every process says so.
    """
    if not (dist.is_available() and dist.is_initialized()):
        raise ValueError("torch.distributed is not initialized; expected several processes, as torchrun starts them")
    sources = {name: module for name, module in model.named_modules() if is_of_activations(module)}
    mine = {name: {key: value.cpu() for key, value in _own(module).items()} for name, module in sources.items()}
    everyone: list[dict[str, dict[str, Tensor]]] = [mine] * dist.get_world_size()
    dist.all_gather_object(everyone, mine)
    for rank, others in enumerate(everyone):
        if others.keys() != mine.keys():
            raise ValueError(
                f"process {rank} has {len(others)} quantizers of activations and process {dist.get_rank()} has "
                f"{len(mine)}; expected the same prepared model in each"
            )
    for name, source in sources.items():
        filled = [others[name] for others in everyone if others[name]["seen"] != 0]
        if filled and isinstance(source, MovingRange):
            source.low.copy_(min(state["low"] / state["seen"] for state in filled))
            source.high.copy_(max(state["high"] / state["seen"] for state in filled))
            source.seen.fill_(1)
        elif filled:
            widest = max(filled, key=lambda state: float(state["begin"] + RATE * state["log2_growth"]))
            for key, value in _own(source).items():
                value.copy_(widest[key])
    return model


def _own(source: nn.Module) -> dict[str, Tensor]:
    """Its tensors without those of sources within it."""
    tensors = [*source.named_parameters(recurse=False), *source.named_buffers(recurse=False)]
    return {name: tensor.detach() for name, tensor in tensors}
