"""Chapter "sensitive" as a visitor meets it: scan, spend a budget, copy, heal."""

import re
from typing import Any

from playwright.sync_api import Page, expect

from qat_core import QATConfig
from tests.browser.chapters import done, drawn, fits_the_width, number, open_chapter

SCANNED = 120_000  # milliseconds: a network is trained first


def test_scan_spend_and_heal(tab: Page, server: str) -> None:
    requests = open_chapter(tab, server, "sensitive")
    fits_the_width(tab)
    words = tab.locator("#sensitive .words")
    expect(words).to_contain_text("Not scanned yet.")
    tab.locator("#sensitive-heal").click()
    expect(words).to_have_text("Nothing to heal yet: press Scan first.")

    tab.locator("#sensitive-scan").click()
    expect(words).to_contain_text("All 3 layers of the sine network scanned", timeout=SCANNED)
    expect(tab.locator("#sensitive .view")).to_have_attribute("data-running", "false")
    assert done(tab) == "sensitive"
    tab.evaluate(
        "Promise.all(document.querySelector('.layers').getAnimations({ subtree: true }).map((a) => a.finished))"
    )
    bars = [width(tab, i) for i in range(3)]
    worst = tab.locator(".layers tr.worst")
    expect(worst).to_have_count(1)
    expect(worst).to_contain_text("most fragile")
    assert bars.index(max(bars)) == tab.locator(".layers tbody tr").evaluate_all(
        "rows => rows.findIndex((row) => row.classList.contains('worst'))"
    )

    asked = len(requests)
    budget = tab.get_by_label("Budget for the weight codes")
    budget.focus()
    for key in ("Home", "End", "ArrowLeft", "ArrowLeft"):
        tab.keyboard.press(key)
        drawn(tab)
        assert the_code_is_the_mix(tab)
    tab.locator("#budget-bytes").fill("1100")
    tab.locator("#budget-bytes").press("Enter")
    drawn(tab)
    total = number(tab.locator(".layers tfoot .bytes").inner_text())
    assert 1056 <= total <= 1100
    assert the_code_is_the_mix(tab)
    expect(tab.locator("#sensitive .bought")).to_contain_text("4 bits everywhere take 2,112 bytes and measure ")
    tab.locator("#sensitive").get_by_label("2 bits", exact=True).check()
    expect(tab.locator(".layers thead")).to_contain_text("only this layer at 2 bits")
    assert len(requests) == asked  # all of that in the browser

    tab.locator("#sensitive").get_by_label("4 bits", exact=True).check()
    tab.locator("#sensitive-heal").click()
    expect(tab.locator(".layers tr.worst")).to_contain_text("healed to", timeout=SCANNED)
    tab.evaluate("document.querySelector('#sensitive-pause').click()")  # nothing happens if it has just ended
    expect(tab.locator("#sensitive .view")).to_have_attribute("data-running", "false", timeout=SCANNED)
    expect(tab.get_by_role("img", name=re.compile(r"with layer \d at 4 bits: .* crushed, .* in FP32"))).to_be_visible()
    fits_the_width(tab)

    tab.locator("#sensitive").get_by_label("2 bits", exact=True).check()
    expect(tab.locator(".layers")).not_to_contain_text("healed to")  # that was at 4 bits
    tab.get_by_label("a CNN for handwritten digits").check()
    expect(words).to_contain_text("Not scanned yet.")
    expect(tab.locator("#budget-bytes")).to_have_value("")


def width(page: Page, row: int) -> float:
    box = page.locator(".layers .fill.ptq").nth(row).bounding_box()
    assert box
    return box["width"]


def the_code_is_the_mix(page: Page) -> bool:
    """What is copied builds the widths that the table shows."""
    source = page.locator("#sensitive .listing code").inner_text()
    names: dict[str, Any] = {}
    exec(source[: source.index("model = prepare")], names)
    config: QATConfig = names["config"]
    shown = [number(text.removesuffix(" bits")) for text in page.locator(".layers .count").all_inner_texts()]
    overrides = [override.weight.bits for override in config.overrides.values() if override]
    return overrides == shown
