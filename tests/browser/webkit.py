"""A WebKitGTK of this machine, the engine of Safari, spoken to in WebDriver: playwright drives only its own build."""

import glob
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from selenium.webdriver import WebKitGTK
from selenium.webdriver.webkitgtk.options import Options
from selenium.webdriver.webkitgtk.service import Service

from tests.browser.tab import SECONDS, Tab, install

DRIVER, BROWSER, DISPLAY = "WebKitWebDriver", "/usr/lib/*/webkit2gtk-4*/MiniBrowser", "Xvfb"
SCREEN = "1400x1000x24"


def find() -> str | None:
    """The driver's path; Debian's packages are installed where that is possible."""
    if not all(map(shutil.which, (DRIVER, DISPLAY))):
        install("webkit2gtk-driver", "xvfb")
    return shutil.which(DRIVER) if glob.glob(BROWSER) and shutil.which(DISPLAY) else None


class WebKitTab(Tab):
    """One page, whose problems are always empty: WebDriver does not tell the console's errors."""

    def __init__(self, browser: WebKitGTK) -> None:
        super().__init__()
        self._browser = browser
        browser.set_script_timeout(SECONDS)

    def open(self, url: str, width: int = 1280) -> None:
        self._browser.set_window_size(width, 900)
        self._browser.get(url)

    def evaluate(self, expression: str) -> Any:
        script = f"""
            const done = arguments[0];
            (async () => JSON.stringify(await ({expression}) ?? null))().then(done, (e) => done(`!${{e}}`));"""
        found = self._browser.execute_async_script(script)
        assert not found.startswith("!"), found
        return json.loads(found)


@contextmanager
def webkit(driver: str) -> Iterator[WebKitTab]:
    """A tab of a WebKit on a screen that nobody sees."""
    command = [DISPLAY, "-displayfd", "1", "-screen", "0", SCREEN, "-nolisten", "tcp"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as screen:
        assert screen.stdout is not None
        try:
            options = Options()
            options.binary_location = glob.glob(BROWSER)[0]
            options.add_argument("--automation")
            service = Service(driver, env={**os.environ, "DISPLAY": f":{screen.stdout.readline().strip()}"})
            browser = WebKitGTK(options=options, service=service)
            try:
                yield WebKitTab(browser)
            finally:
                browser.quit()
        finally:
            screen.kill()
