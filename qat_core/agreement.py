"""Processes that train one model agree on the ranges of its activations: at one point, the end of each common call.

Within a call they would have to run the same layers in the same order. Where one drops a layer, or has no data for an
expert, its numbers would meet those of another layer, and in the end it would wait for nobody.
"""

import warnings
import weakref
from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from qat_core.lsq import NOTHING, NUMBERS, LearnedScale
from qat_core.observer import MovingRange
from qat_core.processes import in_call, in_step_with_others

_met = weakref.WeakSet[nn.Module]()  # models of which one call was common


def agree_after_calls(model: nn.Module) -> None:
    """From now on this module's processes agree whenever it was called by itself in all of them."""
    if any(is_of_activations(module) for module in model.modules()):
        model.register_forward_hook(_agree)


def is_of_activations(module: nn.Module) -> bool:
    """Does it remember data that was seen?"""
    return isinstance(module, MovingRange) or (
        isinstance(module, LearnedScale) and isinstance(module.initial, MovingRange)
    )


def _agree(model: nn.Module, arguments: Any, answer: Any) -> None:
    if torch.compiler.is_compiling() and model.training:
        _tell_that_compiled_ones_do_not()
    if not model.training or in_call() or not in_step_with_others(model, model not in _met):
        return
    _met.add(model)
    sources = [cast(MovingRange | LearnedScale, module) for module in model.modules() if is_of_activations(module)]
    if sources:
        with torch.no_grad():
            _share(sources)


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _tell_that_compiled_ones_do_not() -> bool:
    """Python runs this as it stands while a compiler looks at the model, and not in its calls."""
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        warnings.warn(
            "the ranges of activations of a compiled model follow the batches of each process alone, or those of the "
            "first where buffers are broadcast: call synchronize(model) at the end of each epoch and before saving",
            stacklevel=2,
        )
    return True


def _share(sources: Sequence[MovingRange | LearnedScale]) -> None:
    """Of a range the widest, and of a scale that has begun the largest, with its zero point."""
    mine = torch.stack([_numbers(source) for source in sources])  # (sources, 3)
    of_each = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(of_each, mine)
    everyone = torch.stack(of_each)  # (processes, sources, 3)
    seen = everyone[..., 2]
    low = torch.where(seen > 0, everyone[..., 0] / seen, torch.inf).amin(0)
    high = torch.where(seen > 0, everyone[..., 1] / seen, -torch.inf).amax(0)
    begun = torch.where(seen == NOTHING, -torch.inf, torch.where(seen == NUMBERS, everyone[..., 0], -(2.0**100)))
    chosen = everyone.gather(0, begun.argmax(0)[None, :, None].expand(1, -1, 3))[0]  # (sources, 3)
    some = (seen != NOTHING).any(0)
    for place, source in enumerate(sources):
        if isinstance(source, MovingRange):
            source.low.copy_(torch.where(some[place], low[place], source.low))
            source.high.copy_(torch.where(some[place], high[place], source.high))
            seen_by_all = some[place]
        else:
            source.begin.copy_(chosen[place, 0])
            seen_by_all = chosen[place, 2]
            if source.zero_point is not None:
                source.zero_point.copy_(chosen[place, 1])
        if not source.settled:  # where it is, nothing is written that would have to be asked again
            source.seen.copy_(seen_by_all)


def _numbers(source: MovingRange | LearnedScale) -> Tensor:
    if isinstance(source, MovingRange):
        return torch.stack((source.low, source.high, source.seen))
    zero_point = torch.zeros_like(source.begin) if source.zero_point is None else source.zero_point
    return torch.cat((source.begin, zero_point, source.seen))
