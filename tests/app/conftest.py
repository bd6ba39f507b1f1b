"""What the tests of the page share."""

import socket
from collections.abc import Iterator

import gradio as gr
import pytest

from app import ui
from app.runs.progress import recordings


@pytest.fixture(autouse=True)
def nothing_recorded() -> Iterator[None]:
    """Each test starts as the first visitor does."""
    recordings.forget()
    yield
    recordings.forget()


@pytest.fixture(scope="session")
def page() -> gr.Blocks:
    return ui.build()


@pytest.fixture(scope="session")
def url(page: gr.Blocks) -> Iterator[str]:
    """Where the page is served from this process."""
    port = free_port()
    ui.launch(page, "127.0.0.1", port)
    yield f"http://127.0.0.1:{port}/"
    page.close(verbose=False)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
