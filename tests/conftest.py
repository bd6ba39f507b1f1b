"""What all tests share."""

import pytest
import torch
from hypothesis import settings

settings.register_profile("project", deadline=None, print_blob=True)  # a busy machine is not a wrong answer
settings.load_profile("project")
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seed() -> None:
    """The same numbers in every run: with free scales, one draw in a few hits a rounding tie."""
    torch.manual_seed(0)
