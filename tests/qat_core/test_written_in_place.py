"""What is written into the tensors of a prepared model that has answered, by averages for one, counts at once."""

import copy

import pytest
import torch

from qat_core import prepare
from tests.qat_core.test_state import SCALES, config, network


def with_tensors_of(model, other, share, through):
    for own, theirs in zip(
        (*model.parameters(), *model.buffers()), (*other.parameters(), *other.buffers()), strict=True
    ):
        through(own).lerp_(theirs, share)


@torch.no_grad()
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("through", [lambda tensor: tensor, lambda tensor: tensor.data, torch.Tensor.detach])
def test_what_is_written_into_a_model_that_has_answered_counts_at_once(scale, through):
    model, x = prepare(network(), config(scale)), torch.randn(64, 4)
    model(x)
    model.eval()(x)
    with_tensors_of(model, prepare(network(), config(scale)), 0.5, through)  # ranges of nothing do not count
    fresh = prepare(network(), config(scale))
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(model(x), fresh.eval()(x))


@torch.no_grad()
@pytest.mark.parametrize("scale", SCALES)
def test_a_copy_is_asked_anew_however_often_it_was_written_to(scale):
    model, x = prepare(network(), config(scale)), torch.randn(64, 4)
    model(x)
    model.eval()(x)
    for writes in range(1, 4):
        written = copy.deepcopy(model)
        for _ in range(writes):
            with_tensors_of(written, prepare(network(), config(scale)), 0.5, lambda tensor: tensor)
        fresh = prepare(network(), config(scale))
        fresh.load_state_dict(written.state_dict())
        assert torch.equal(written(x), fresh.eval()(x))
