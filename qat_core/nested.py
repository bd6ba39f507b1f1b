"""Nested tensors: rows of several lengths in one tensor, as torch.nested makes them."""

from collections.abc import Callable

import torch
from torch import Tensor


def on_values(x: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """A nested tensor whose numbers, all of them as one dense tensor, are changed; their places stay.

    Args:
        x: nested, jagged or strided.
        change: takes and answers a dense tensor whose last dimension is that of x.
    """
    if x.layout == torch.jagged:
        ragged = next((dim for dim, size in enumerate(x.shape) if not isinstance(size, int)), 1)
        offsets, lengths = x.offsets(), x.lengths()  # type: ignore[attr-defined]
        return torch.nested.nested_tensor_from_jagged(change(x.values()), offsets, lengths, ragged)
    parts = x.unbind()
    rows = change(torch.cat([part.reshape(-1, part.shape[-1]) for part in parts]))
    split = torch.split(rows, [part.numel() // part.shape[-1] for part in parts])
    return torch.nested.as_nested_tensor([new.view(part.shape) for new, part in zip(split, parts, strict=True)])
