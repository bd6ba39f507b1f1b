"""A WebKitGTK of this machine, the engine of Safari, spoken to in WebDriver: playwright drives only its own build."""

import glob
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from selenium.webdriver import WebKitGTK
from selenium.webdriver.webkitgtk.options import Options
from selenium.webdriver.webkitgtk.service import Service

DRIVER, BROWSER, DISPLAY = "WebKitWebDriver", "/usr/lib/*/webkit2gtk-4*/MiniBrowser", "Xvfb"
SECONDS = 120  # for anything
SCREEN = "1400x1000x24"


def find() -> str | None:
    """The driver's path; Debian's packages are installed where that is possible."""
    if not all(map(shutil.which, (DRIVER, DISPLAY))) and shutil.which("apt-get") and os.geteuid() == 0:
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "webkit2gtk-driver", "xvfb"]
        subprocess.run(["apt-get", "update", "-qq"], check=False)
        subprocess.run(command, check=False, env=environment)
    return shutil.which(DRIVER) if glob.glob(BROWSER) and shutil.which(DISPLAY) else None


class Tab:
    """One page.

    Attributes:
        problems: empty, since WebDriver does not tell the console's errors.
    """

    def __init__(self, browser: WebKitGTK) -> None:
        self._browser = browser
        self.problems: list[str] = []
        browser.set_script_timeout(SECONDS)

    def open(self, url: str, width: int = 1280) -> None:
        self._browser.set_window_size(width, 900)
        self._browser.get(url)

    def evaluate(self, expression: str) -> Any:
        """What an expression of JavaScript gives, as JSON."""
        script = f"""
            const done = arguments[0];
            (async () => JSON.stringify(await ({expression}) ?? null))().then(done, (e) => done(`!${{e}}`));"""
        found = self._browser.execute_async_script(script)
        assert not found.startswith("!"), found
        return json.loads(found)

    def wait_for(self, expression: str) -> None:
        """Until it is true."""
        deadline = time.monotonic() + SECONDS
        while not self.evaluate(expression):
            assert time.monotonic() < deadline, f"{expression}: {self.evaluate('document.body.innerText')[-800:]}"
            time.sleep(0.1)


@contextmanager
def webkit(driver: str) -> Iterator[Tab]:
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
                yield Tab(browser)
            finally:
                browser.quit()
        finally:
            screen.kill()
