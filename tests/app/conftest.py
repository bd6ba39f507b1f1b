"""What the tests of the page share."""

from collections.abc import Iterator

import pytest

from app.runs.progress import recordings


@pytest.fixture(autouse=True)
def nothing_recorded() -> Iterator[None]:
    """Each test starts as the first visitor does."""
    recordings.forget()
    yield
    recordings.forget()
