"""Where a forward pass runs: in which model's call, in the recomputation of one that was, beside which processes."""

import sys
import threading
import warnings
import weakref
from collections.abc import Callable
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.module_tracker import ModuleTracker

# Is torch.func at work: vmap, grad, jvp? It takes no autograd.Function but of a form that costs more per call.
in_transform: Callable[[], bool] = torch._C._are_functorch_transforms_active

NOTES = {  # what torch says where a float model would go on -> what it means of a prepared one
    "input mutation during higher order op": "ranges of activations follow every batch in training, which they cannot "
    "in a branch of torch.cond: show data to its layers one by one, calibrate(model.layer, batches), and then hold all "
    "ranges, Schedule(model, freeze_observers_after=0)",
    "Tensor' as parameter": "while a prepared model is called, reading a weight gives a tensor on its grid, which is "
    "no parameter: tie layers once, before prepare, and not in each call",
}

_tracker = ModuleTracker()
_running = threading.local()


def tell_calls(model: nn.Module) -> None:
    """From now on `in_call` knows when this module runs, and `get_parameter` does."""
    model.register_forward_pre_hook(_enter)
    model.register_forward_hook(_leave, always_call=True)
    model.__dict__["get_parameter"] = _GetParameter(model)


def in_call() -> bool:
    """Does a module that tells its calls run? What a compiler looks at is a call, and so is what a backward pass
    recomputes."""
    return torch.compiler.is_compiling() or bool(_calls()) or in_backward()


class _GetParameter:
    """A model's `get_parameter`. It does not hold the model, whose memory would wait for the garbage collector."""

    def __init__(self, model: nn.Module) -> None:
        self._model = weakref.ref(model)

    def __call__(self, target: str) -> Tensor:
        return parameter_in_calls(self._model(), target)  # type: ignore[arg-type]

    def __reduce__(self) -> Any:
        return _GetParameter, (self._model(),)


def parameter_in_calls(model: nn.Module, target: str) -> Tensor:
    """What reading the attribute answers: torch's own `get_parameter` refuses what is on its grid."""
    path, _, name = target.rpartition(".")
    holder = model.get_submodule(path)
    if in_call() and name in holder._parameters:
        return cast(Tensor, getattr(holder, name))
    return nn.Module.get_parameter(model, target)


def on_grid_in_calls(name: str) -> property:
    """A parameter that whoever reads it while a prepared model runs gets on its grid."""

    def read(layer: Any) -> Any:
        if name not in layer._parameters and name not in layer.__dict__:
            raise AttributeError(f"{type(layer).__name__} has no {name!r} now")
        if name in (ready := layer.__dict__.get("on_grid_now", {})):
            return ready[name]
        weight = layer.latent(name)
        if in_call():
            return layer.get_submodule(f"{name}_quantizer")(weight)
        tell_read_outside(layer, name, weight)
        return weight

    def write(layer: Any, value: Any) -> None:
        layer.__dict__[name] = value  # what computes a weight before each call leaves it there

    def delete(layer: Any) -> None:
        del layer.__dict__[name]

    return property(read, write, delete)


def tell_read_outside(layer: nn.Module, name: str, weight: Tensor) -> None:
    """Warn, once a layer, that a weight is read in float where a call of its model waits for its backward pass.

    What is read there is for the loss, as are the products of `model.score(h)` or of a loss that is given the weight of
    a head. An optimizer, an initialization and a logger read it at other times.
    """
    learns = torch.is_grad_enabled() and weight.requires_grad and weight.is_leaf
    if not learns or weight.grad is not None or "told" in layer.__dict__:
        return
    answered = getattr(_running, "answered", lambda: None)()
    for layer_name, module in [] if answered is None else answered.named_modules():
        if module is layer:
            layer.__dict__["told"] = True
            warnings.warn(
                f"the {name} of layer {layer_name!r} is read outside of the model's calls, where it is in float: right "
                f"for a penalty; what is multiplied should be layer.{name}_quantizer(layer.latent({name!r})), which is "
                f"on its grid, or leave it in float: overrides={{{layer_name!r}: None}}",
                stacklevel=3,
            )


def _calls() -> list[nn.Module]:
    if not hasattr(_running, "modules"):
        _running.modules = []
    return _running.modules  # type: ignore[no-any-return]


def _enter(module: nn.Module, arguments: Any) -> None:
    if not torch.compiler.is_compiling():
        _calls().append(module)


def _leave(module: nn.Module, arguments: Any, result: Any) -> None:
    if not torch.compiler.is_compiling():
        calls = _calls()
        while calls and calls.pop() is not module:  # what was left behind by one that never returned
            pass
        error = sys.exc_info()[1]
        if error is None and not calls and torch.is_grad_enabled():
            _running.answered = weakref.ref(module)
        elif error is not None:
            for note in (note for said, note in NOTES.items() if said in str(error)):
                if note not in getattr(error, "__notes__", ()):
                    error.add_note(note)


def in_backward() -> bool:
    """Is this forward pass part of a backward pass? Then it repeats one that was: gradient checkpointing."""
    return not torch.compiler.is_compiling() and _tracker.is_bw


def only_looks() -> bool:
    """Is this forward pass one that observers take nothing from: a recomputed one, or one in a transform?"""
    return in_transform() or in_backward()


def without_numbers() -> bool:
    """Is this forward pass traced or batched, so that no number in it can be asked for?"""
    return torch.compiler.is_compiling() or in_transform()


def in_trace() -> bool:
    """Does torch.jit.trace watch this forward pass? It watches twice, and has to see the same."""
    return bool(torch.jit.is_tracing())  # type: ignore[attr-defined, no-untyped-call]


def in_step_with_others(model: nn.Module, first: bool) -> bool:
    """Have all processes called the model now, so that they can compare what they saw?

    FSDP2, whose layers gather their weights from all, promises that, and `DistributedDataParallel` when its backward
    pass will add up gradients. Anywhere else, in `no_sync()` and in `join()`, a process may be alone, and waiting for
    the others would be waiting forever. The `first` call of all is common to them there, too.
    """
    if not (dist.is_available() and dist.is_initialized() and torch.is_grad_enabled()):
        return False
    ddp = DistributedDataParallel._get_active_ddp_module()  # type: ignore[no-untyped-call]
    if ddp is None:
        from torch.distributed.fsdp import FSDPModule  # its own imports take long, and few need it

        return any(isinstance(module, FSDPModule) for module in model.modules())
    return first or (ddp.require_backward_grad_sync and not ddp._join_config.enable)
