"""What the tests of the chapters that run in the browser share."""

import base64
import json

import numpy as np
import torch
from playwright.sync_api import Locator, Page
from torch import Tensor

from app.components.module import STATIC

# Every view is a module of its own, so they are drawn in any order, and the frame asks for its settings meanwhile.
# The feed draws nothing, but tells of the network.
READY = """() => window.settingsAreKnown && window.networkIsKnown &&
    [...document.querySelectorAll(".view:not(#feed *)")].every((view) => !view.offsetWidth || view.childElementCount)"""
MINUS, SUFFIXES = "\N{MINUS SIGN}", "%\N{MULTIPLICATION SIGN}"


def hidden_weights() -> Tensor:
    """The (64, 64) matrix that the chapters draw, read without their code."""
    layer = json.loads((STATIC / "data" / "pretrained.json").read_text(encoding="utf-8"))["parameters"]["2.weight"]
    flat = np.frombuffer(base64.b64decode(layer["float32"]), "<f4")
    return torch.from_numpy(flat.reshape(layer["shape"]).copy())


def open_page(page: Page, address: str) -> None:
    """Open an address, and wait until all that is seen is drawn and in its place, and the frame has no more to ask."""
    page.goto(address)
    page.wait_for_function(READY)
    drawn(page)


def unfold_settings(page: Page) -> None:
    """A small screen folds them away."""
    fold = page.locator("#more-settings button")
    fold.wait_for(state="attached")
    if not page.locator("#settings").is_visible():
        fold.click()


def open_chapter(page: Page, server: str, key: str) -> list[str]:
    """Open a chapter, and collect what it asks of the server from then on."""
    open_page(page, f"{server}/?chapter={key}")
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url) if is_question(request.url) else None)
    return requests


def is_question(url: str) -> bool:
    return url.startswith("http") and not any(part in url for part in ("/file=", "heartbeat", "healthz"))


def done(page: Page) -> str | None:
    return page.evaluate("window.chapterDone ?? null")


def drag(page: Page, handle: Locator, by: float, steps: int = 12) -> None:
    """Take hold of a handle and move it sideways by some pixels."""
    handle.scroll_into_view_if_needed()
    box = handle.bounding_box()
    assert box
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + by, y, steps=steps)
    page.mouse.up()


def drawn(page: Page) -> None:
    """Wait until what was asked for is on the screen."""
    page.evaluate("() => new Promise((ready) => requestAnimationFrame(() => requestAnimationFrame(ready)))")


def number(text: str) -> float:
    """A number as the page writes it."""
    return float(text.replace(MINUS, "-").replace(",", "").rstrip(SUFFIXES))


def fits_the_width(page: Page) -> None:
    assert page.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0
