"""Chapter "ptq": guess, look, explore; by hand and by keyboard."""

import re
from collections.abc import Callable
from typing import Any

from playwright.sync_api import Page, expect

from app.chapters.ptq.chapter import HERE
from tests.browser.chapters import fits_the_width, open_page


def trained(tab: Page, server: str) -> None:
    """An untrained network is offered training first."""
    open_page(tab, f"{server}/?chapter=ptq")
    expect(tab.locator("#ptq .words")).to_contain_text("Train it first")
    expect(tab.locator("#crush")).to_be_hidden()
    tab.locator("#train-first").click()
    tab.locator("#ptq .view[data-step='2000'][data-running=false]").wait_for(timeout=120_000)
    expect(tab.locator("#train-first")).to_be_hidden()


def test_a_drawn_guess_is_scored_and_the_roundings_are_explored(tab: Page, server: str) -> None:
    trained(tab, server)
    chart = tab.locator("#ptq .plot-svg")
    chart.scroll_into_view_if_needed()
    box = chart.bounding_box()
    middle = box["y"] + box["height"] / 2
    tab.mouse.move(box["x"] + 50, middle)
    tab.mouse.down()
    tab.mouse.move(box["x"] + box["width"] - 22, middle - 40, steps=8)
    tab.mouse.up()
    expect(tab.locator("#ptq .words")).to_contain_text("That is your guess")
    assert tab.locator("#ptq path.sketch").last.get_attribute("d").count("L") > 100  # no gaps between events
    assert tab.evaluate("getSelection().toString()") == ""

    tab.locator("#crush").click()
    words = tab.locator("#ptq .words")
    expect(words).to_contain_text("away from the truth")
    expect(words).to_contain_text("With 4 bits one step of the grid is")
    expect(tab.locator("#ptq .multiple")).to_have_count(16)
    expect(tab.locator("#ptq .multiple[aria-pressed=true]")).to_have_attribute(
        "aria-label", re.compile("^4 bits, per tensor, min-max")
    )

    requests: list[str] = []
    tab.on("request", lambda sent: requests.append(sent.url))
    tab.locator("#ptq-bits").focus()
    tab.keyboard.press("ArrowLeft")
    expect(words).to_contain_text("With 8 bits")
    expect(tab.locator("#ptq-bits")).to_have_attribute("aria-valuetext", "8 bits")
    tab.locator("#ptq .multiple[aria-label^='2 bits, per channel, MSE']").click()
    expect(tab.locator("#ptq .plot-title")).to_have_text("Rounded to 2 bits, per channel, MSE")
    assert not [url for url in requests if "heartbeat" not in url]
    fits_the_width(tab)


def test_a_guess_needs_no_pointer(tab: Page, server: str) -> None:
    trained(tab, server)
    tab.locator("#ptq .guesses input").first.focus()
    tab.keyboard.press("Space")
    tab.keyboard.press("ArrowDown")
    expect(tab.locator("#ptq .words")).to_contain_text("That is your guess")
    tab.locator("#crush").focus()
    tab.keyboard.press("Enter")
    expect(tab.locator("#ptq .words")).to_contain_text("away from the truth")


def test_the_score_is_the_distance_to_the_truth_where_something_was_drawn(in_module: Callable[..., Any]) -> None:
    def score(*arguments: list[float | None]) -> str:
        return in_module(HERE / "sketch.js", "({ score }, given) => score(...given)", arguments)

    words = score([0, None, 2.0], [3.0, 9.0, -2.0], [1.0, 0, 1.0])
    assert words.startswith("Your line is 3.54 away from the truth; a curve that stays as it is would be 2.55 away.")
    assert score([3.0, 9.0], [3.0, 9.0], [1.0, 0]).endswith("You saw it coming.")
    assert "hardly changes" in score([1.0, 0.0], [3.0, 9.0], [3.05, 9.0])
    assert score([None], [1.0], [1.0]) == ""
