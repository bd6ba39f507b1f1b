"""What all tests share."""

import os

import pytest
import torch
from hypothesis import settings

from app.lab.threads import fix_threads
from export.read import costs

settings.register_profile("project", deadline=None, print_blob=True)  # a busy machine is not a wrong answer
settings.load_profile("project")
fix_threads()
costs.BLOCK_SECONDS /= 10  # a hundred files are timed to be asked something else

MOST_PROCESSES = 4


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """How many processes `-n auto` starts: one a core, and one more where some drive a browser, which mostly waits.

    Each has torch and Gradio in memory, which takes ten seconds to import.
    """
    return min((os.cpu_count() or 1) + (not config.getoption("ignore")), MOST_PROCESSES)


@pytest.fixture(autouse=True)
def seed() -> None:
    """The same numbers in every run: with free scales, one draw in a few hits a rounding tie."""
    torch.manual_seed(0)
