"""Who computes with a weight in float while its layer has it on a grid, or writes to it? Looked for in the first call
of a model, and of each part of it that is called by itself.

A read of `layer.weight` is on the grid, and so is what the layer does. `parameters()`, `_parameters`, `state_dict()`
and references that were kept give the weight as it is trained, whoever asks: an optimizer should get it, a product
should not, since a converted model has other numbers there. What is read on the grid is a copy: writing to it, as a
forward does that clips its weights or normalizes them, changes nothing that is trained.
"""

import re
import sys
import threading
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from qat_core.fake_quant import FakeQuantize
from qat_core.layers import QuantLayer, quantized_layers
from qat_core.processes import in_trace, in_transform

WRITES = r"(?!requires_grad)[a-z]\w*_|__i[a-z]+__"  # names of what works in place

_watched = threading.local()


def watch_first_call(module: nn.Module) -> None:
    """Have the first call of a module that holds quantized layers warn of weights that are read in float."""
    module.register_forward_pre_hook(_begin)
    module.register_forward_hook(_end, always_call=True)


class _Reads(TorchFunctionMode):
    """Notes which weights meet other tensors outside of quantized layers, as they are or as matrices made of them.

    What is computed of weights alone, as averages of them and penalties on them are, meets nothing.

    Args:
        model: that is called; hooks in its quantizers and layers say when they run.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        weights = [
            ((name, part), weight)
            for name, layer in quantized_layers(model)
            for part, weight, quantizer in (*layer.quantized_weights(), *_bias(layer))
            if not quantizer.is_frozen
        ]
        self.kept = [weight for _, weight in weights]  # so that no other tensor gets the id of one
        self.of = {id(weight): key for key, weight in weights}
        self.found: dict[tuple[str, str], None] = {}
        self.copies: dict[int, tuple[str, str]] = {}  # of weights, on their grids
        self.written: dict[tuple[str, str], None] = {}
        self.inside = 0
        self.handles = [
            handle
            for module in model.modules()
            if isinstance(module, QuantLayer | FakeQuantize)
            for handle in (
                module.register_forward_pre_hook(self.enter),
                module.register_forward_hook(self.leave, always_call=True),
            )
        ]

    def enter(self, module: nn.Module, given: Any) -> None:
        self.inside += 1

    def leave(self, module: nn.Module, given: Any, answer: Any) -> None:
        self.inside -= 1
        if not self.inside and isinstance(module, FakeQuantize) and id(given[0]) in self.of:
            self._copied(answer, self.of[id(given[0])])

    def _copied(self, answer: Tensor, key: tuple[str, str]) -> None:
        self.kept.append(answer)
        self.copies[id(answer)] = key

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Iterable[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        answer = func(*args, **(kwargs or {}))
        first = next(iter(args), None)
        if not self.inside and (key := self.copies.get(id(first))) is not None:
            if func.__name__ in ("__get__", "detach") and isinstance(answer, Tensor):
                self._copied(answer, key)
            elif func.__name__ in ("__set__", "__setitem__") or re.fullmatch(WRITES, func.__name__):
                self.written[key] = None
        if not self.inside and isinstance(answer, Tensor):  # not a size, a device or a type
            flat = [y for x in (*args, *(kwargs or {}).values()) for y in (x if isinstance(x, list | tuple) else [x])]
            tensors = [x for x in flat if isinstance(x, Tensor)]
            read = [self.of[id(x)] for x in tensors if id(x) in self.of]
            if len(read) < len(tensors):
                self.found |= dict.fromkeys(read)
            elif read and answer.dim() > 1:
                self.kept.append(answer)
                self.of[id(answer)] = read[0]
        return answer


def _bias(layer: QuantLayer) -> list[tuple[str, Tensor, FakeQuantize]]:
    """With the input's quantizer, where the layer has its bias on the grid of the products."""
    if layer.input_quantizer is None or layer.bias is None or not layer.has_integer_accumulator():
        return []
    return [("bias", layer.bias, layer.input_quantizer)]


def _begin(module: nn.Module, arguments: Any) -> None:
    if in_trace() or torch.compiler.is_compiling() or in_transform():
        return
    _forget(module._forward_pre_hooks, _begin)
    if getattr(_watched, "module", None) is not None:  # which it is a part of
        _forget(module._forward_hooks, _end)
        return
    _watched.module, reads = module, _Reads(module)
    module.__dict__["_reads"] = reads
    reads.__enter__()  # type: ignore[no-untyped-call]


def _end(module: nn.Module, arguments: Any, answer: Any) -> None:
    if torch.compiler.is_compiling():
        return
    if sys.exc_info()[1] is None and _begin not in module._forward_pre_hooks.values():
        _forget(module._forward_hooks, _end)  # torch goes through them as they are where a call fails
    reads: _Reads | None = module.__dict__.pop("_reads", None)
    if reads is None:
        return
    reads.__exit__(None, None, None)  # type: ignore[no-untyped-call]
    _watched.module = None
    for handle in reads.handles:
        handle.remove()
    for name, part in reads.written:
        warnings.warn(
            f"the {part} of layer {name!r} is written to while the model is called, which changes a copy of it on its "
            "grid and not what is trained; write to it between two calls, or leave it in float: "
            f"overrides={{{name!r}: None}}",
            stacklevel=2,
        )
    for name, part in reads.found:
        instead = "" if part == "bias" else f"read it as an attribute, layer.{part}, or "
        warnings.warn(
            f"the {part} of layer {name!r} is read in float by something else than its layer, which has it on a grid; "
            f"{instead}leave it in float: overrides={{{name!r}: None}}",
            stacklevel=2,
        )


def _forget(hooks: dict[int, Callable[..., Any]], own: Callable[..., Any]) -> None:
    for key in [key for key, hook in hooks.items() if hook is own]:
        del hooks[key]
