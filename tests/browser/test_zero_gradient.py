"""The zero gradient, as a visitor meets it."""

import re

from playwright.sync_api import Page, expect

from tests.browser.chapters import fits_the_width, open_page


def test_a_visit_from_the_slope_of_a_stair_to_training(tab: Page, server: str) -> None:
    open_page(tab, f"{server}/?chapter=zero_gradient")
    a_wide_difference_sees_what_a_narrow_one_does_not(tab)
    training_moves_one_network_and_not_the_other(tab)
    another_weight_is_cut_along_and_biases_may_learn(tab)
    fits_the_width(tab)


def training_moves_one_network_and_not_the_other(chapter: Page) -> None:
    counts = chapter.locator("#zero-gradient .count")
    expect(counts.first).to_have_text("256 of 256 gradients are exactly 0")
    expect(counts.last).not_to_have_text("256 of 256 gradients are exactly 0")
    chapter.locator("#zero-train").click()
    chapter.wait_for_function("Number(document.querySelector('#zero-gradient .view').dataset.step) > 20")
    chapter.locator("#zero-pause").click()
    expect(chapter.locator("#zero-gradient .view")).to_have_attribute("data-running", "false")
    step = chapter.locator("#zero-gradient .view").get_attribute("data-step")
    chapter.wait_for_timeout(500)
    assert chapter.locator("#zero-gradient .view").get_attribute("data-step") == step
    weights = chapter.locator("#zero-gradient .numbers tbody tr").first
    expect(weights).to_have_text(re.compile(r"weights\s*0 of 288 moved\s*[1-9]\d* of 288 moved"))
    expect(counts.first).to_have_text("256 of 256 gradients are exactly 0")
    chapter.get_by_role("button", name="not rounded").click()
    expect(chapter.locator("#zero-gradient thead", has_text="Parameters")).to_contain_text("not rounded")
    chapter.locator("#zero-reset").click()
    expect(chapter.locator("#zero-gradient .view")).to_have_attribute("data-step", "0")
    fits_the_width(chapter)


def a_wide_difference_sees_what_a_narrow_one_does_not(chapter: Page) -> None:
    slider, verdict = chapter.locator("#zero-h"), chapter.locator("#zero-gradient .slopes .words")
    slider.focus()
    chapter.keyboard.press("Home")
    expect(verdict).to_contain_text("Both ends stand on the same stair")
    chapter.keyboard.press("End")
    expect(verdict).to_contain_text("Wide enough to see another stair")
    expect(slider).to_have_attribute("aria-valuetext", "2.5 stairs")
    expect(chapter.locator("#zero-gradient dd").first).to_have_text("0")


def another_weight_is_cut_along_and_biases_may_learn(chapter: Page) -> None:
    chapter.locator("#zero-gradient .heatmap").first.focus()
    chapter.keyboard.press("PageDown")
    chapter.keyboard.press("End")
    described = chapter.locator("#zero-gradient .slice svg[role=img]")
    expect(described).to_have_attribute("aria-label", re.compile(r"row \d+, column 15:"))
    chapter.locator("#zero-free").get_by_label("and the biases").click()
    chapter.locator("#zero-step").click()
    biases = chapter.locator("#zero-gradient .numbers tbody tr").nth(1)
    expect(biases).to_have_text(re.compile(r"biases\s*[1-9]\d* of 33 moved"))
