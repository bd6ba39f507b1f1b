"""Chapter "fp32": what a visitor does."""

import re

from playwright.sync_api import Page, expect

from tests.browser.chapters import fits_the_width, open_page


def test_the_network_learns_and_the_floor_is_named(tab: Page, server: str) -> None:
    open_page(tab, f"{server}/?chapter=fp32&noise=0.3")
    view = tab.locator("#fp32 .view")
    tab.wait_for_function("document.querySelector('#fp32 .view')?.dataset.label?.includes('noise 0.3')")
    charts = tab.locator("#fp32 svg.plot-svg")
    first = charts.nth(1).get_attribute("aria-label")
    tab.locator("#fp32-run").click()
    tab.wait_for_function("Number(document.querySelector('#fp32 .view').dataset.step) >= 300")
    tab.locator("#fp32-pause").click()
    tab.locator("#fp32 .view[data-running=false]").wait_for()
    step = view.get_attribute("data-step")
    expect(tab.locator("#fp32 .step")).to_have_text(f"Step {int(step):,} of 2,000")
    expect(tab.locator("#fp32 .words")).to_contain_text(f"At step {int(step):,} the loss on the noisy points is")
    assert charts.nth(1).get_attribute("aria-label") != first
    assert re.search(r"the sine itself scores 0\.\d+ on the points", charts.nth(1).get_attribute("aria-label"))

    tab.locator("#fp32 summary").click()
    rows = tab.locator("#fp32 .chart-table tbody tr")
    expect(rows.first.locator("th").first).to_have_text("0")
    expect(rows.last.locator("th").first).to_have_text(step)
    fits_the_width(tab)

    tab.locator("#fp32-reset").click()
    tab.wait_for_function("document.querySelector('#fp32 .view').dataset.step === '0'")
    expect(rows).to_have_count(1)
