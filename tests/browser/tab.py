"""What a test asks of a browser that playwright does not drive, and how Debian's comes onto the machine."""

import json
import os
import shutil
import subprocess
import time
from abc import ABC, abstractmethod
from typing import Any

SECONDS = 120  # for anything


class Tab(ABC):
    """One page.

    Attributes:
        problems: errors of its console, as far as the browser tells them.
    """

    def __init__(self) -> None:
        self.problems: list[str] = []

    @abstractmethod
    def open(self, url: str, width: int = 1280) -> None:
        """In a window of that many pixels."""

    @abstractmethod
    def evaluate(self, expression: str) -> Any:
        """What an expression of JavaScript gives, as JSON."""

    def click(self, selector: str) -> None:
        self.evaluate(f"document.querySelector({json.dumps(selector)}).click()")

    def wait_for(self, expression: str) -> None:
        """Until it is true."""
        deadline = time.monotonic() + SECONDS
        while not self.evaluate(expression):
            assert time.monotonic() < deadline, f"{expression}: {self.evaluate('document.body.innerText')[-800:]}"
            time.sleep(0.1)


def install(*packages: str) -> None:
    """Debian's packages, where that is possible."""
    if shutil.which("apt-get") and os.geteuid() == 0:
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages]
        subprocess.run(["apt-get", "update", "-qq"], check=False)
        subprocess.run(command, check=False, env=environment)
