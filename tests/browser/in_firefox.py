"""`make browsers`: the way of most visitors, and onnxruntime in the browser, in Debian's Firefox."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from export import export_onnx
from export.__main__ import main
from export.read.web import runtime
from tests.browser.firefox import FirefoxTab, find, firefox
from tests.browser.test_check_html import POWERS, ROUNDED_IN_THE_KERNEL
from tests.browser.walk import walk
from tests.export.models import W4, prepared

WORDS = "document.querySelector('#browser .words').textContent"
FIRST_ANSWER = "(document.querySelector('#browser .asker .words')?.textContent ?? '')"


@pytest.fixture(scope="module")
def tab() -> Iterator[FirefoxTab]:
    path = find()
    assert path, "Firefox was not found and could not be installed"
    runtime.fetch()
    with firefox(path) as tab:
        yield tab


def test_the_page_that_is_handed_on(tab: FirefoxTab, tmp_path: Path) -> None:
    page, x = tmp_path / "check.html", torch.randn(64, 64)
    assert main(["pack", str(page)]) == 0
    net = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 3))
    paths = [tmp_path / f"{name}.onnx" for name in ("weights", "powers", "rounded", "text")]
    export_onnx(prepared(net, W4, x), x, paths[0])
    export_onnx(prepared(net, POWERS, x), x, paths[1])
    export_onnx(prepared(net, ROUNDED_IN_THE_KERNEL, x), x, paths[2], flavor="ort")
    paths[3].write_text("Hello.")
    tab.open(page.as_uri(), width=390)
    tab.choose("input", paths)
    tab.wait_for("document.querySelectorAll('article[class]').length === 4")
    text, rounded, powers, weights = tab.evaluate("[...document.querySelectorAll('article')].map((a) => a.innerText)")
    assert "not a whole ONNX file" in text
    assert "the receipt does NOT hold" in rounded
    assert "this file needs a processor with AVX2" in rounded
    assert "the receipt holds in this browser" in powers
    assert "equal bit for bit at every level" in powers
    assert "the receipt holds in this browser" in weights
    assert tab.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0
    assert tab.problems == []


@pytest.mark.parametrize("width", [1280, 390])
def test_open_run_export_download(tab: FirefoxTab, server: str, width: int) -> None:
    walk(tab, server, width)


@pytest.mark.parametrize("width", [1280, 390])
def test_the_chapter(tab: FirefoxTab, server: str, width: int) -> None:
    tab.open(f"{server}/?chapter=export", width)
    tab.wait_for("Boolean(document.querySelector('#exported .words'))")
    tab.click("#export")
    tab.wait_for("document.querySelector('#download-ort')?.disabled === false")
    tab.click('#nav a[href*="chapter=onnxruntime"]')
    tab.wait_for("document.querySelector('#check-here')?.disabled === false")
    tab.click("#check-here")
    tab.wait_for(f"{FIRST_ANSWER}.includes('x = 0.5')")
    assert "The receipt holds in this browser, too" in tab.evaluate(WORDS)
    rows = tab.evaluate("[...document.querySelectorAll('#browser tbody tr')].map((row) => row.innerText)")
    assert [row.count("✓") for row in rows] == [0, 1, 1] * 2
    assert "Firefox" in rows[2]
    tab.evaluate(
        "(() => { const input = document.querySelector('#browser input'); input.value = '-1.25';"
        " input.dispatchEvent(new Event('input')); })()"
    )
    tab.wait_for(f"{FIRST_ANSWER}.includes('x = \N{MINUS SIGN}1.25')")
    assert tab.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0
    assert tab.problems == []
