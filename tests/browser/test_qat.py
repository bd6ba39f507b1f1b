"""Chapter "qat": what a visitor sees while training, looks back at, and breaks."""

import re
from collections.abc import Callable
from typing import Any

from playwright.sync_api import Page, expect

from app.components.module import STATIC
from app.runs.diagnosis import number
from tests.browser.chapters import fits_the_width

CELLS = "[...document.querySelector('#qat canvas').getContext('2d').getImageData(0, 0, 64, 64).data]"


def run_to(page: Page, step: int) -> int:
    """Run to a step that is not reached yet, pause, and say where the run has ended."""
    assert step > step_shown(page)  # or else the frame from before Run would count as the one after Pause
    page.locator("#qat-run").click()
    page.wait_for_function(f"Number(document.querySelector('#qat .view').dataset.step) >= {step}")
    page.locator("#qat-pause").click()
    page.locator("#qat .view[data-running=false]").wait_for()
    return step_shown(page)


def step_shown(page: Page) -> int:
    return int(page.locator("#qat .view").get_attribute("data-step"))


def test_a_visit_trains_looks_back_and_breaks_it(page: Page) -> None:
    the_slider_leads_back_through_the_run_without_asking_the_server(page)
    what_is_broken_is_diagnosed_and_stays_here(page)
    the_histogram_holds_every_weight(page)


def the_slider_leads_back_through_the_run_without_asking_the_server(page: Page) -> None:
    newest = run_to(page, 200)
    view, slider = page.locator("#qat .view"), page.locator("#scrubber")
    labels = [page.locator(f"#qat {chart}").nth(i) for chart, i in ((".plot-svg", 0), (".plot-svg", 2), ("canvas", 0))]
    now = [label.get_attribute("aria-label") for label in labels]
    assert page.evaluate(f"{CELLS}.some((v, i) => i % 4 === 3 && v > 0)")  # something flips back and forth

    requests: list[str] = []
    page.on("request", lambda sent: requests.append(sent.url))
    slider.focus()
    page.keyboard.press("Home")
    expect(view).to_have_attribute("data-shown", "0")
    expect(slider).to_have_attribute("aria-valuetext", "step 0 of 2000")
    then = [label.get_attribute("aria-label") for label in labels]
    assert all("step 0" in label for label in then)
    assert not page.evaluate(f"{CELLS}.some((v, i) => i % 4 === 3 && v > 0)")
    page.keyboard.press("ArrowRight")
    expect(view).to_have_attribute("data-shown", "10")
    page.locator("#qat .scrubber button").click()
    expect(view).to_have_attribute("data-shown", str(newest))
    assert [label.get_attribute("aria-label") for label in labels] == now
    assert not [url for url in requests if "heartbeat" not in url]
    fits_the_width(page)

    slider.focus()
    page.keyboard.press("Home")
    expect(view).to_have_attribute("data-shown", "0")
    newest = run_to(page, newest + 50)
    expect(view).to_have_attribute("data-shown", str(newest))  # Run shows what it trains


def the_histogram_holds_every_weight(page: Page) -> None:
    page.locator("#qat-reset").click()
    page.locator("#qat .view[data-step='0']").wait_for()
    page.locator("#qat-step").click()
    page.locator("#qat .view[data-step='1']").wait_for()
    page.get_by_text("The weights on their grid as a table").click()
    cells = page.locator("#qat .chart-table").nth(1).locator("tbody td:nth-child(2)")
    expect(cells).to_have_count(16 + 2)
    counts = cells.all_inner_texts()
    assert sum(map(int, counts)) == 64 * 64
    assert len(counts) == 16 + 2


def what_is_broken_is_diagnosed_and_stays_here(page: Page) -> None:
    newest = step_shown(page)
    expect(page.locator("#qat .diagnosis p")).to_contain_text("0% of the weights clipped")
    page.locator("#preset").get_by_label("Scale 50 times too small").check()
    page.wait_for_function("document.querySelector('#qat .view').dataset.preset === 'fine'")
    run_to(page, 60)
    diagnosis = page.locator("#qat .diagnosis")
    expect(diagnosis).to_contain_text("The scale is too small")
    expect(diagnosis.locator("dd").first).to_have_text(re.compile(r"^[89]\d"))
    page.locator("#preset").get_by_label("Nothing").check()
    page.wait_for_function(f"document.querySelector('#qat .view').dataset.step === '{newest}'")
    expect(page.locator("#scrubber")).to_have_attribute("max", str(newest // 10))  # the whole run is still there


def test_what_another_chapter_trained_is_shown(page: Page) -> None:
    leave_for(page, "fp32")
    page.locator("#fp32-step").click()
    page.locator("#fp32 .view[data-step='1']").wait_for()
    page.locator("#fp32-step").click()
    page.locator("#fp32 .view[data-step='2']").wait_for()
    leave_for(page, "qat")
    page.locator("#qat .view[data-step='2']").wait_for()
    expect(page.locator("#scrubber")).to_have_attribute("max", "2")  # the frames of both chapters are one recording


def test_what_is_caught_up_on_never_goes_back_behind_a_step(in_module: Callable[..., Any]) -> None:
    ask = """({ add, own }, late) => {
        const frame = { key: "a run", preset: "" };
        add({ ...frame, step: 2 });
        add({ ...frame, step: late, unasked: true });
        return own().frames.at(-1).step;
    }"""
    assert [in_module(STATIC / "data" / "recording.js", ask, late) for late in (1, 3)] == [2, 3]


def test_the_table_writes_numbers_as_the_sentences_do(in_module: Callable[..., Any]) -> None:
    values = [0, 2.8e-8, 9.97e-7, 1e-6, 5.04e-5, 0.0996, 0.5, 9.96, 42.3, 99.4, 99.5, 1234.6]
    written = in_module(STATIC / "widgets" / "format.js", "({ short }, values) => values.map(short)", values)
    assert written == [number(value) for value in values]


def leave_for(page: Page, key: str) -> None:
    menu = page.locator("#nav .menu")
    if menu.is_visible():
        menu.click()
    page.locator(f"#chapter-list a[href*='chapter={key}']").click()
