"""`python -m benchmarks.page`: how long one visitor waits for the page, in a Chromium on this machine.

It starts a server of its own. Server and browser share the machine, so measure when nothing else runs.
"""

import argparse
import itertools
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

from benchmarks.server import serving
from tests.browser.chromium import find

WATCHER = Path(__file__).with_suffix(".js")
DRAGGED = ("four_bits", "rounding", "ste")
PAUSES = 8
IDLE = 1.0  # milliseconds: nothing was drawn in a frame that took less
PATIENCE = 60_000  # milliseconds
# From the click to the first answer that the browser gives by itself, and from an x typed to the next.
ANSWERING = """async () => {
    const said = () => document.querySelector("#browser .asker .words")?.textContent ?? "";
    const until = (words) => new Promise((done) => {
        const look = () => said().includes(words) ? done(performance.now()) : requestAnimationFrame(look);
        look();
    });
    const clicked = performance.now();
    document.querySelector("button#check-here, #check-here button").click();
    const first = await until("x = 0.5 this browser answers");
    const input = document.querySelector("#browser .asker input");
    input.value = "0.7";
    const typed = performance.now();
    input.dispatchEvent(new Event("input", { bubbles: true }));
    return [first - clicked, (await until("x = 0.7 this browser answers")) - typed];
}"""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.page", description="One visitor on the page.")
    parser.add_argument("--width", type=int, default=1280, help="of the window, in pixels (default: 1280)")
    args = parser.parse_args(argv)
    with serving() as served, sync_playwright() as playwright:
        url = served.url
        browser = playwright.chromium.launch(executable_path=find(), args=["--no-sandbox", "--disable-gpu"])
        print(f"front door: three curves move after {front_door(browser, url, args.width)}, without a click")
        opening(browser, url, args.width)
        for what, seed in (("replayed", 0), ("trained just now", random.randrange(1000, 10**6))):
            print(f"a run of 2,000 steps, {what}: {whole_run(browser, url, args.width, seed)}")
        print(f"Pause: {pauses(browser, url, args.width)}")
        for chapter in DRAGGED:
            print(f"drag, {chapter}: {dragging(browser, url, args.width, chapter)}")
        print(f"the file in this browser: {answering(browser, url, args.width)}")
        browser.close()
    return 0


def front_door(browser: Browser, url: str, width: int) -> str:
    """From the address typed to the recorded run in motion, for new visitors."""
    took = []
    for _ in range(PAUSES):
        page = browser.new_context(viewport={"width": width, "height": 900}).new_page()
        watched(page, url)
        page.wait_for_function("window.seen.moving !== null")
        took.append(page.evaluate("window.seen.moving"))
        page.context.close()
    return f"{median(took):.0f} ms (median of {PAUSES}, longest {max(took):.0f})"


def opening(browser: Browser, url: str, width: int) -> None:
    """Twice: as a new visitor, and as one whose browser has the files already."""
    context = browser.new_context(viewport={"width": width, "height": 900})
    for visit in ("first visit", "second visit"):
        page = context.new_page()
        devtools = context.new_cdp_session(page)
        devtools.send("Network.enable")
        sizes: list[float] = []
        devtools.on("Network.loadingFinished", lambda event, sizes=sizes: sizes.append(event["encodedDataLength"]))
        opened(page, f"{url}/?chapter=qat")
        page.wait_for_timeout(1000)
        ready = page.evaluate("window.seen.ready")
        print(f"{visit}: interactive after {ready:.0f} ms, {sum(sizes) / 1000:.0f} KB in {len(sizes)} answers")
        page.close()
    context.close()


def whole_run(browser: Browser, url: str, width: int, seed: int) -> str:
    page = browser.new_context(viewport={"width": width, "height": 900}).new_page()
    opened(page, f"{url}/?chapter=qat&seed={seed}")
    page.locator("#qat-run").click()
    page.wait_for_function("window.seen.draws.at(-1).step === '2000' && window.seen.draws.at(-1).running === 'false'")
    draws = after_the_click(page)
    moved = [draw["at"] for draw in draws if draw["step"] != "0"]
    gaps = [after - before for before, after in itertools.pairwise(moved)]
    page.context.close()
    return (
        f"first moved curve after {moved[0]:.0f} ms, {1000 / (sum(gaps) / len(gaps)):.1f} frames a second, "
        f"gaps: median {median(gaps):.0f} ms, 95th percentile {_p95(gaps):.0f} ms, longest {max(gaps):.0f} ms"
    )


def pauses(browser: Browser, url: str, width: int) -> str:
    """From the click to the last frame."""
    took = []
    for _ in range(PAUSES):
        page = browser.new_context(viewport={"width": width, "height": 900}).new_page()
        opened(page, f"{url}/?chapter=qat&seed={random.randrange(1000, 10**6)}")
        page.locator("#qat-run").click()
        page.wait_for_function("Number(window.seen.draws.at(-1).step) > 100")
        page.locator("#qat-pause").click()
        page.wait_for_function("window.seen.draws.at(-1).running === 'false'")
        took.append(after_the_click(page)[-1]["at"])
        page.context.close()
    return f"median {median(took):.0f} ms, longest {max(took):.0f} ms, of {PAUSES}"


def dragging(browser: Browser, url: str, width: int, chapter: str) -> str:
    """What the main thread takes for a frame while the mouse drags, from the first handler to the end of painting."""
    page = browser.new_context(viewport={"width": width, "height": 900}).new_page()
    opened(page, f"{url}/?chapter={chapter}")
    handle = page.locator(".view [role=slider], .view input[type=range]").first
    handle.scroll_into_view_if_needed()
    box = handle.bounding_box()
    assert box
    asked: list[str] = []
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.wait_for_timeout(1000)
    page.on("request", lambda request: asked.append(request.url) if "heartbeat" not in request.url else None)
    page.evaluate("window.seen.frames.length = 0")
    for by in (-80, 80, -80):
        page.mouse.move(x + by, y, steps=60)
    frames = [took for took in page.evaluate("window.seen.frames") if took > IDLE]
    page.mouse.up()
    page.context.close()
    return (
        f"{len(frames)} frames, median {median(frames):.1f} ms, 95th percentile {_p95(frames):.1f} ms, "
        f"longest {max(frames):.1f} ms; requests to the server: {len(asked)}"
    )


def answering(browser: Browser, url: str, width: int) -> str:
    """What an exported file takes to answer where the visitor is, of whom nothing was loaded before."""
    firsts, others = [], []
    for _ in range(PAUSES):
        page = browser.new_context(viewport={"width": width, "height": 900}).new_page()
        opened(page, f"{url}/?chapter=export")
        page.get_by_text("No file yet").wait_for()
        page.locator("button#export, #export button").first.click()
        page.locator("#exported .onnx-graph").wait_for()
        page.evaluate("document.querySelector(`#chapter-list a[href*='chapter=onnxruntime']`).click()")
        page.locator("button#check-here:enabled, #check-here button:enabled").first.wait_for()
        first, other = page.evaluate(ANSWERING)
        firsts.append(first)
        others.append(other)
        page.context.close()
    return (
        f"first answer {median(firsts):.0f} ms after the click (median of {PAUSES}, longest {max(firsts):.0f}), "
        f"the next after {median(others):.0f} ms"
    )


def watched(page: Page, address: str) -> None:
    page.set_default_timeout(PATIENCE)
    page.add_init_script(path=WATCHER)
    page.goto(address)


def opened(page: Page, address: str) -> None:
    watched(page, address)
    page.locator(".chapter:visible .view > *").first.wait_for()


def after_the_click(page: Page) -> list[dict[str, Any]]:
    """What was drawn after the last click, in milliseconds since."""
    pressed, draws = page.evaluate("[window.seen.pressed, window.seen.draws]")
    return [{**draw, "at": draw["at"] - pressed} for draw in draws if draw["at"] > pressed]


def _p95(values: list[float]) -> float:
    return quantiles(values, n=20)[-1]


if __name__ == "__main__":
    sys.exit(main())
