"""Whether two snapshots are the same."""

from typing import Any

import torch
from torch import Tensor


def assert_same(one: Any, other: Any) -> None:
    """The same plain data, tensors bit for bit."""
    assert type(one) is type(other)
    if isinstance(one, Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list):
        for mine, yours in zip(one, other, strict=True):
            assert_same(mine, yours)
    else:
        assert one == other
