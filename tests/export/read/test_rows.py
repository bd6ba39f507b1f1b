"""Change, rows, cosine and class, against numbers worked out by hand."""

import numpy as np
import pytest
import torch
from torch import nn

from export.read.rows import cosine, same_class, touched
from export.write.call import Call, flattened
from export.write.divergence import watch

ROWS = np.array([[3.0, 4.0], [1.0, 0.0], [0.0, 0.0]], np.float32)


def test_rows_by_hand():
    turned = np.array([[4.0, 3.0], [1.0, 0.0], [0.0, 0.0]], np.float32)
    assert cosine(turned, ROWS) == pytest.approx(24 / 25)
    assert same_class(turned, ROWS) == pytest.approx(2 / 3)
    assert touched(np.abs(turned - ROWS).astype(np.float64), 0.5) == pytest.approx(1 / 3)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (), (4,), (2, 3, 4)])
def test_any_shape_is_the_same_as_itself(shape):
    values = np.ones(shape, np.float32)
    assert (cosine(values, values), same_class(values, values), touched(np.zeros(shape), 0.0)) == (1.0, 1.0, 0.0)


def test_numbers_that_are_not_finite_have_no_cosine():
    assert cosine(np.array([[np.nan, 1], [2, 2]]), np.array([[1.0, 1], [1, 1]])) == pytest.approx(1)
    assert cosine(np.array([1, 2]), np.array([1, 2])) == 1


def test_what_is_written_over_later_was_seen_before():
    x = torch.randn(16, 4)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(inplace=True))
    first, second = watch(flattened(model, Call.of(model, x)), [x])
    assert first.torch.min() < 0 <= second.torch.min()
