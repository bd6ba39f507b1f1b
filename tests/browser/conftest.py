"""A server as a visitor meets it, and a Chromium that looks at it."""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

from app.components.module import STATIC, static_path
from tests.browser.chapters import open_page, unfold_settings
from tests.browser.chromium import find

ROOT = Path(__file__).resolve().parents[2]
ARTIFACTS = ROOT / "artifacts"
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--js-flags=--min-semi-space-size=64",  # MB: a page is gone before its garbage is worth collecting
)
START_SECONDS = 180
PATIENCE = 60_000  # milliseconds
expect.set_options(timeout=PATIENCE)

# Kept from the start, since a test cannot know when it comes.
KEPT = """
window.addEventListener("settings", () => (window.settingsAreKnown = true));
window.addEventListener("network", () => (window.networkIsKnown = true));
window.addEventListener("chapter-done", (event) => (window.chapterDone = event.detail));
"""


FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fixtures are told of a failure, and keep what was seen."""
    report = yield
    if report.failed:
        item.stash[FAILED] = True
    return report


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of the page, served by path from another directory, as a Space does."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    log = elsewhere / "server.log"
    command = [sys.executable, str(ROOT / "app" / "__main__.py"), "--port", str(port)]
    with log.open("w") as output:
        process = subprocess.Popen(
            command, cwd=elsewhere, stdout=output, stderr=subprocess.STDOUT, env=clean_environment()
        )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until_it_answers(url, process, log)
        yield url
        process.terminate()
        assert process.wait(10) == 0
        assert "Traceback" not in log.read_text()
    finally:
        process.kill()


def clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("GRADIO_SERVER_")}


def wait_until_it_answers(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except (urllib.error.URLError, TimeoutError):
            time.sleep(0.2)
    raise RuntimeError(f"the page did not come up: {log.read_text()}")


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find(), args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def in_module(server: str, chromium: Browser) -> Iterator[Callable[..., Any]]:
    """What a function makes of one of our modules, loaded without the page around it, and of an argument."""
    alone = chromium.new_page()
    alone.goto(address(server, STATIC / "page" / "page.css"))

    def ask(module: Path, function: str, argument: Any = None) -> Any:
        loaded = f"async ([address, argument]) => ({function})(await import(address), argument)"
        return alone.evaluate(loaded, [address(server, module), argument])

    yield ask
    alone.close()


def address(server: str, file: Path) -> str:
    return f"{server}/gradio_api/file={static_path(file)}"


@pytest.fixture(scope="session")
def tabs(chromium: Browser) -> Iterator[list[Page]]:
    """Tabs to use again: a page that one of them has shown costs half of what it costs in a new one."""
    kept: list[Page] = []
    yield kept
    close(kept)


def close(tabs: list[Page]) -> None:
    while tabs:
        tabs.pop().context.close()


@pytest.fixture
def own_tab(tabs: list[Page]) -> Iterator[None]:
    """No other test has the tab of this one, before or after."""
    close(tabs)
    yield
    close(tabs)


@pytest.fixture(params=[1280, 390], ids=lambda width: f"{width}px")
def tab(request: pytest.FixtureRequest, server: str, chromium: Browser, tabs: list[Page]) -> Iterator[Page]:
    """An empty tab. Afterwards nothing may have gone wrong in it, or in one beside it, or left the machine."""
    page = tabs.pop() if tabs else new_tab(chromium)
    page.set_viewport_size({"width": request.param, "height": 900})
    context = page.context
    problems: list[str] = []
    told = {
        "console": lambda message: problems.append(message.text) if is_problem(message) else None,
        "weberror": lambda error: problems.append(str(error.error)),
        "request": lambda sent: problems.append(f"asks {sent.url}") if is_foreign(sent.url, server) else None,
    }
    for event, note in told.items():
        context.on(event, note)
    yield page
    if problems or FAILED in request.node.stash:
        ARTIFACTS.mkdir(exist_ok=True)
        page.screenshot(path=ARTIFACTS / f"{request.path.stem}-{request.node.name}.png", full_page=True)
        context.close()
    else:
        for event, note in told.items():
            context.remove_listener(event, note)
        empty(page, server)
        tabs.append(page)
    assert problems == []


def new_tab(chromium: Browser) -> Page:
    context = chromium.new_context(accept_downloads=True)
    context.add_init_script(KEPT)
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    return page


def empty(tab: Page, server: str) -> None:
    """Nothing is left of the visitor but what the browser has in its cache."""
    for beside in tab.context.pages:
        if beside != tab:
            beside.close()
    tab.unroute_all(behavior="ignoreErrors")
    tab.emulate_media(media="null", color_scheme="null", reduced_motion="null", forced_colors="null")
    tab.context.clear_permissions()
    tab.goto(address(server, STATIC / "page" / "page.css"))
    tab.evaluate("() => [localStorage, sessionStorage].forEach((store) => store.clear())")


@pytest.fixture
def page(tab: Page, server: str) -> Page:
    """The page, open at the training and drawn."""
    open_page(tab, f"{server}/?chapter=qat")
    unfold_settings(tab)
    return tab


def is_problem(message: ConsoleMessage) -> bool:
    """An error, but that nobody answers the question whether somebody does: a test may take the network away."""
    return message.type == "error" and not message.location["url"].endswith("/healthz")


def is_foreign(url: str, server: str) -> bool:
    return not url.startswith((server, "data:", "blob:"))
