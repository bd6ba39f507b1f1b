"""`make browsers`: the way of most visitors in Debian's WebKitGTK."""

from collections.abc import Iterator

import pytest

from tests.browser.walk import walk
from tests.browser.webkit import WebKitTab, find, webkit


@pytest.fixture(scope="module")
def tab() -> Iterator[WebKitTab]:
    path = find()
    assert path, "WebKitGTK was not found and could not be installed"
    with webkit(path) as tab:
        yield tab


@pytest.mark.parametrize("width", [1280, 450])  # its window is not narrower
def test_open_run_export_download(tab: WebKitTab, server: str, width: int) -> None:
    walk(tab, server, width)
