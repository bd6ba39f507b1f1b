"""A Firefox of this machine, spoken to in WebDriver BiDi, which it knows: playwright drives only its own build."""

import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

from tests.browser.tab import SECONDS, Tab, install

NAMES = ("firefox-esr", "firefox")
LISTENING = re.compile(rb"WebDriver BiDi listening on (ws://\S+)")
PREFERENCES = (
    'user_pref("datareporting.policy.dataSubmissionEnabled", false);\nuser_pref("app.update.enabled", false);\n'
)


def find() -> str | None:
    """Its path; Debian's package is installed where that is possible."""
    if not any(map(shutil.which, NAMES)):
        install(NAMES[0])
    return next(filter(None, map(shutil.which, NAMES)), None)


class FirefoxTab(Tab):
    """One page; its console is told."""

    def __init__(self, connection: ClientConnection) -> None:
        super().__init__()
        self._connection, self._asked = connection, 0
        self.ask("session.new", capabilities={})
        self.ask("session.subscribe", events=["log.entryAdded"])
        (first, *_) = self.ask("browsingContext.getTree")["contexts"]
        self._context = first["context"]

    def ask(self, method: str, **parameters: Any) -> Any:
        """The answer to a command; what the browser tells meanwhile is noted."""
        self._asked += 1
        self._connection.send(json.dumps({"id": self._asked, "method": method, "params": parameters}))
        while True:
            told = json.loads(self._connection.recv(SECONDS))
            if told.get("method") == "log.entryAdded" and told["params"]["level"] == "error":
                self.problems.append(told["params"]["text"])
            if told.get("id") == self._asked:
                assert told["type"] == "success", told
                return told["result"]

    def open(self, url: str, width: int = 1280) -> None:
        self.ask("browsingContext.setViewport", context=self._context, viewport={"width": width, "height": 900})
        self._go_to("about:blank")
        self.problems.clear()  # those of the page before, whose streams end with it
        self._go_to(url)

    def _go_to(self, url: str) -> None:
        self.ask("browsingContext.navigate", context=self._context, url=url, wait="complete")

    def evaluate(self, expression: str) -> Any:
        found = self._evaluate(f"(async () => JSON.stringify(await ({expression}) ?? null))()")
        return json.loads(found["value"])

    def choose(self, selector: str, files: Sequence[Path]) -> None:
        """Give files to an input."""
        element = self._evaluate(f"document.querySelector({json.dumps(selector)})")
        paths = [str(file) for file in files]
        self.ask("input.setFiles", context=self._context, element={"sharedId": element["sharedId"]}, files=paths)

    def _evaluate(self, expression: str) -> Any:
        target = {"context": self._context}
        found = self.ask("script.evaluate", expression=expression, target=target, awaitPromise=True)
        assert found["type"] == "success", found
        return found["result"]


@contextmanager
def firefox(path: str) -> Iterator[FirefoxTab]:
    """A tab of a Firefox without a window, with a profile of its own."""
    with tempfile.TemporaryDirectory() as profile, tempfile.TemporaryFile() as log:
        Path(profile, "user.js").write_text(PREFERENCES)
        command = [path, "--headless", "--no-remote", "--remote-debugging-port=0", "--profile", profile]
        with subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "HOME": profile}) as process:
            try:
                with connect(f"{_address(log, process)}/session", max_size=None) as connection:
                    yield FirefoxTab(connection)
            finally:
                process.kill()


def _address(log: Any, process: "subprocess.Popen[bytes]") -> str:
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        log.seek(0)
        if found := LISTENING.search(log.read()):
            return found[1].decode()
        time.sleep(0.2)
    log.seek(0)
    raise RuntimeError(f"Firefox did not come up: {log.read().decode()[-400:]}")
