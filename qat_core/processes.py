"""Where a forward pass runs: in the recomputation of one that was, and beside which other processes."""

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils.module_tracker import ModuleTracker

_tracker = ModuleTracker()


def in_backward() -> bool:
    """Is this forward pass part of a backward pass? Then it repeats one that was: gradient checkpointing."""
    return not torch.compiler.is_compiling() and _tracker.is_bw


def in_transform() -> bool:
    """Is torch.func at work: vmap, grad, jvp? It takes no autograd.Function but of a form that costs more per call."""
    return not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active()


def without_numbers() -> bool:
    """Is this forward pass traced or batched, so that no number in it can be asked for?"""
    return torch.compiler.is_compiling() or in_transform()


def in_step_with_others(first: bool = False) -> bool:
    """Do all processes run this forward pass now, so that they can compare what they saw?

    Only `DistributedDataParallel` promises that, when its backward pass will add up gradients. Anywhere else, in
    `no_sync()` and in `join()`, a process may be alone, and waiting for the others would be waiting forever. The
    `first` forward pass of all is common to them there, too.
    """
    if torch.compiler.is_compiling() or not (dist.is_available() and dist.is_initialized()):
        return False
    model = DistributedDataParallel._get_active_ddp_module()  # type: ignore[no-untyped-call]
    if model is None or first:
        return model is not None
    return torch.is_grad_enabled() and model.require_backward_grad_sync and not model._join_config.enable


def largest_of_all(values: Tensor) -> Tensor:
    """The largest of each number over all processes, in place."""
    dist.all_reduce(values, dist.ReduceOp.MAX)
    return values
