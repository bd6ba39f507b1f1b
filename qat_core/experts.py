"""Experts: a module that keeps a matrix for each of them in one parameter, by which its own forward multiplies."""

import re
from collections.abc import Callable
from functools import cache, wraps
from typing import Any, ClassVar

from torch import Tensor, nn

from qat_core.layers import QuantLayer
from qat_core.processes import on_grid_in_calls
from qat_core.spec import QATConfig


class QuantExperts(QuantLayer):
    """Experts whose stacks of matrices, (experts, out, in), are quantized; activations stay in float, since the
    products are the module's own.

    Per channel: a scale for each output of each expert. Where the module says `is_transposed`, as those of
    transformers do, a stack is (experts, in, out). Groups are neighbours in the last dimension.
    """

    kind: ClassVar[type[nn.Module]]  # of the FP32 module
    on_grid_now: dict[str, Tensor]  # while it is called

    @classmethod
    def input_spec(cls, config: QATConfig) -> None:
        """Always None."""

    def weight_names(self) -> tuple[str, ...]:
        return _stacks(self)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """A class that is made while a program runs is found again by what it is made of."""
        made = type(self)
        return _empty, (made.kind, made.axis, self.weight_names()), super().__reduce_ex__(protocol)[2]


def is_experts(module: nn.Module) -> bool:
    """Known by the name of its class and by what it holds, so that nobody has to have the library that it is from."""
    return bool(re.search("[Ee]xpert|M[oO][eE]", type(module).__name__)) and bool(_stacks(module))


def quantized_experts(module: nn.Module) -> type[QuantExperts]:
    """The class of quantized experts for such a module."""
    axis = (0, 2) if getattr(module, "is_transposed", False) else (0, 1)
    return _made(type(module), axis, _stacks(module))  # type: ignore[arg-type]


def _stacks(module: nn.Module) -> tuple[str, ...]:
    """The parameters that hold a matrix for each expert."""
    return tuple(name for name, p in module._parameters.items() if p is not None and p.dim() == 3 and min(p.shape) > 1)


@cache
def _made(kind: type[nn.Module], axis: tuple[int, ...], stacks: tuple[str, ...]) -> type[QuantExperts]:
    own = {"kind": kind, "axis": axis, "forward": _forward(kind.forward)}
    own |= {name: on_grid_in_calls(name) for name in stacks}
    return type(f"Quant{kind.__name__}", (QuantExperts, kind), own)


def _forward(own: Callable[..., Any]) -> Callable[..., Any]:
    """The module's own, which may read a stack once an expert: it is put on its grid once a call."""

    @wraps(own)  # whose arguments name the inputs of a file
    def forward(self: QuantExperts, *args: Any, **kwargs: Any) -> Any:
        self.on_grid_now = {name: quantizer(weight) for name, weight, quantizer in self.quantized_weights()}
        try:
            return own(self, *args, **kwargs)
        finally:
            self.on_grid_now = {}

    return forward


def _empty(kind: type[nn.Module], axis: tuple[int, ...], stacks: tuple[str, ...]) -> QuantExperts:
    made = _made(kind, axis, stacks)  # type: ignore[arg-type]
    return made.__new__(made)
