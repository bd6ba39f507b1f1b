"""Where a scale and a zero point come from: each source answers `source.qparams(x)`.

`x` is the tensor about to be quantized, as `to_groups` returns it; the answer broadcasts against it. Asking moves
nothing: what a source takes from x it takes in `source.observe(x)`, which each forward pass calls first. Gradient
checkpointing recomputes a forward pass, and then nothing is taken and the answer is that of the first time.

What a source remembers is numbers in float32 buffers, finite from the first moment, beside a number that says how much
of them is memory: copying, averaging, loading and sending them is ordinary work with tensors.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from qat_core.affine import Axis, minmax_qparams, mse_qparams
from qat_core.processes import without_numbers
from qat_core.spec import QuantSpec

Take = Callable[[Tensor], Tensor]  # of a tensor with a number or more for each row, those of some rows


def whole(tensor: Tensor) -> Tensor:
    """All rows, as they are."""
    return tensor


class Source(nn.Module):
    """Keeps what a scale comes from.

    Attributes:
        covers_all: nothing in x ever lies beyond the grid.
        each_row: where rows do not share scales, no row's hangs on another row, so that some can be asked for alone.
        calibrating: it takes in every tensor, whole batches being shown to it.
        grid: smallest code, largest code, shift and group size that its tensors are for, where they are for no other.
        former: names that tensors had in checkpoints of earlier versions.
    """

    covers_all = False
    each_row = False
    calibrating = False
    grid: Tensor
    grid_of: tuple[float, ...] = ()
    former: ClassVar[tuple[str, ...]] = ()

    def holds_for(self, spec: QuantSpec) -> None:
        """Its tensors mean nothing on another grid; a checkpoint of another is refused."""
        group_size = spec.group_size if spec.granularity == "per_group" else 0
        self.grid_of = (spec.quant_min, spec.quant_max, spec.shift, group_size)
        self.register_buffer("grid", torch.tensor(self.grid_of, dtype=torch.float32))

    @property
    def only_zeros(self) -> bool:
        """Was what it has taken in nothing else? That says nothing about a scale."""
        return False

    def qparams(self, x: Tensor, take: Take = whole) -> tuple[Tensor, Tensor | None]:
        """Scale and zero point (None when symmetric) for x, as `to_groups` returns it; both broadcast against it.

        Where x is some rows of the tensor that was observed, `take` picks their numbers from what is remembered.
        """
        raise NotImplementedError

    def observe(self, x: Tensor) -> None:
        """x is about to be quantized: take it in, if now is the time for it."""

    def restart(self) -> None:
        """Forget what was taken in: the next tensor is the first."""

    def stop_growing(self, x: Tensor) -> None:
        """Parts of x are written from its scale from now on: a scale that grows with x must not any more."""

    def covering(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """The same, found at once, if the best takes a search."""
        return self.qparams(x)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Source":
        """Follow a model to another device, but not to half precision: a range moves in steps too fine for it.

        What comes from the meta device has no numbers: it begins with zeros, which is nothing seen.
        """

        def kept(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            if tensor.is_meta and not moved.is_meta:
                return torch.zeros_like(moved, dtype=tensor.dtype)
            return tensor.to(moved.device) if moved.dtype.itemsize < 4 <= tensor.dtype.itemsize else moved

        super()._apply(kept, recurse)  # type: ignore[no-untyped-call]
        if self.grid_of and not self.grid.is_meta:
            self.grid = self.grid.new_tensor(self.grid_of)
        return self

    def upgrade(self, state: dict[str, Tensor]) -> None:
        """Fill in what checkpoints of earlier versions do not have; state: this source's tensors by their names."""

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        metadata: dict[str, Any],
        strict: bool,
        missing: list[str],
        unexpected: list[str],
        errors: list[str],
    ) -> None:
        own = {name: tensor for name, tensor in (self._parameters | self._buffers).items() if tensor is not None}
        state = {name: state_dict.pop(prefix + name) for name in _names_under(prefix, state_dict)}
        strangers = state.keys() - {*own, *self.former}
        if strangers:
            problem = f"it has {min(strangers)!r}; expected {', '.join(own) or 'nothing'}"
        else:
            self.upgrade(state)
            problem = self._misfit(state, own)
        if problem:
            errors.append(
                f"the scales of {prefix.rstrip('.')} are of another kind in the checkpoint: {problem}. Prepare the "
                "model as the one that was saved, or leave out all keys with '_quantizer', and scales begin anew"
            )
            return
        if self.grid_of:  # checkpoints of earlier versions have none, and averages round it
            beside = next(iter(state.values()), self.grid)
            state["grid"] = beside.new_tensor(self.grid_of, dtype=torch.float32)
        state_dict |= {prefix + name: tensor.float() for name, tensor in state.items()}
        super()._load_from_state_dict(state_dict, prefix, metadata, strict, missing, unexpected, errors)

    def _misfit(self, state: dict[str, Tensor], own: dict[str, Tensor]) -> str:
        """What in a checkpoint is for other scales than these; empty if nothing is."""
        for name, tensor in state.items():
            if tensor.shape != own[name].shape:
                return f"its {name!r} has the shape {tuple(tensor.shape)}; expected {tuple(own[name].shape)}"
        grid = state.get("grid")
        if grid is not None and not grid.is_meta:
            found = [round(number, 2) for number in grid.tolist()]
            if found != [*self.grid_of]:
                return f"they are for {_in_words(found)}; expected {_in_words(self.grid_of)}"
        return ""


def _names_under(prefix: str, state_dict: Mapping[str, Any]) -> list[str]:
    """Of a module's own tensors in a checkpoint."""
    names = [key.removeprefix(prefix) for key in state_dict if key.startswith(prefix)]
    return [name for name in names if "." not in name]


def _in_words(grid: Sequence[float]) -> str:
    low, high, shift, group_size = grid
    words = f"codes from {low:g} to {high:g}" + (f" shifted by {shift:g}" if shift else "")
    return words + (f" in groups of {group_size:g}" if group_size else "")


class StatefulSource(Source):
    """A source of scales that remembers what it has seen or learned.

    A checkpoint that has nothing for it leaves it as it is.

    Attributes:
        seen: how much it remembers.
    """

    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self._settled = False
        self._settled_with: tuple[float, ...] = ()

    @property
    def settled(self) -> bool:
        """Is what it remembers known to be complete, so that it need not be asked each time?

        No longer where something was written to `seen` since, as averages are, or another tensor is in its place.
        """
        if not self._settled or without_numbers():
            return self._settled
        return self._settled_with == self._state_of_seen()

    @settled.setter
    def settled(self, value: bool) -> None:
        self._settled = value
        if value and not without_numbers():
            self._settled_with = self._state_of_seen()

    def _state_of_seen(self) -> tuple[float, ...]:
        """What changes when it does; elsewhere than on the CPU, asking for a number is waiting for it."""
        seen = self.seen
        if seen.is_cpu and seen.numel() == 1:
            return id(seen), seen.item()
        return id(seen), 0 if seen.is_inference() else seen._version

    def without_numbers(self) -> bool:
        """Can no number be asked for now?"""
        return self.seen.is_meta or without_numbers()

    def answer_to(self, question: Callable[[], Tensor], otherwise: float | None) -> float | None:
        """A number, or `otherwise` where none can be asked for: torch.func.vmap may have one for each of many."""
        if self.seen.is_meta or torch.compiler.is_compiling():
            return otherwise
        try:
            return question().item()
        except RuntimeError:
            return otherwise

    def train(self, mode: bool = True) -> "StatefulSource":
        self.settled = False
        return super().train(mode)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        self.settled = False
        if _names_under(prefix, state_dict):
            super()._load_from_state_dict(state_dict, prefix, *args)


class FromTensor(Source):
    """Measured on the very tensor at hand, each time: for weights, which move, and for dynamic activations."""

    each_row = True

    def __init__(self, spec: QuantSpec, axis: Axis) -> None:
        super().__init__()
        self.spec, self.axis = spec, axis
        self.covers_all = spec.symmetric and spec.scale == "minmax"
        self.choose_qparams = minmax_qparams if spec.scale == "minmax" else mse_qparams

    def qparams(self, x: Tensor, take: Take = whole) -> tuple[Tensor, Tensor | None]:
        return self.choose_qparams(x.detach(), self.spec, self.axis)

    def covering(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        return minmax_qparams(x.detach(), self.spec, self.axis)
