"""What a visitor does: train, pause, step, reset, export, download, ask."""

import re
from pathlib import Path

import numpy as np
import onnxruntime
from playwright.sync_api import Locator, Page, expect

WHILE_WE_LOOK = 600  # milliseconds: six frames, were training to go on


def test_a_visit_from_the_first_step_to_the_file(page: Page, tmp_path: Path) -> None:
    fits_the_width(page)
    assert step(page) == 0
    first_loss = qat_loss(page)

    button(page, "run").click()
    wait_for_step(page, "step > 300")
    assert qat_loss(page) < first_loss

    button(page, "pause").click()
    expect(button(page, "run")).to_be_enabled()
    paused_at = step(page)
    page.wait_for_timeout(WHILE_WE_LOOK)
    assert step(page) == paused_at

    button(page, "step").click()
    wait_for_step(page, f"step === {paused_at + 1}")

    button(page, "run").click()
    wait_for_step(page, f"step > {paused_at + 100} && step < 2000")

    open_chapter(page, "take_home")
    button(page, "export").click()
    verdicts = page.locator("#receipt .verdict")
    expect(verdicts).to_have_count(4)
    expect(verdicts).to_have_text(["✓ ok"] * 4)
    with page.expect_download() as download:
        button(page, "download").click()
    path = tmp_path / download.value.suggested_filename
    download.value.save_as(path)

    answer = ask(page, "0.7")
    expect(answer).to_contain_text("For x = 0.7 the file answers")
    on_page = float(re.search(r"answers (-?[\d.]+\d)", answer.inner_text())[1])
    (in_file,) = onnxruntime.InferenceSession(path).run(None, {"input": np.array([[0.7]], np.float32)})
    assert abs(on_page - in_file.item()) < 1e-5

    open_chapter(page, "training")
    expect(button(page, "run")).to_be_enabled()  # a run that nobody sees stops
    button(page, "step").click()
    wait_for_step(page, "step % 25 === 1")
    open_chapter(page, "take_home")
    expect(page.locator("#receipt")).to_contain_text("the page has moved on to")
    fits_the_width(page)


def test_reset_and_new_settings_start_at_step_0(page: Page) -> None:
    seed = page.locator("#seed input")
    seed.fill("3")
    wait_for_label(page, "seed 3")
    first_loss = qat_loss(page)
    button(page, "run").click()
    wait_for_step(page, "step > 50")

    button(page, "reset").click()
    wait_for_step(page, "step === 0")
    assert qat_loss(page) == first_loss
    expect(seed).to_have_value("3")
    expect(button(page, "run")).to_be_enabled()

    button(page, "run").click()
    wait_for_step(page, "step > 50")
    page.locator("#bits").get_by_label("2", exact=True).check()
    wait_for_step(page, "step === 0")
    page.wait_for_timeout(WHILE_WE_LOOK)
    assert step(page) == 0


def test_every_click_counts(page: Page) -> None:
    for _ in range(5):
        button(page, "step").click()
    wait_for_step(page, "step === 5")
    for _ in range(3):
        button(page, "run").click()
        button(page, "pause").click()
    expect(button(page, "run")).to_be_enabled()
    assert step(page) < 2000


def test_what_is_not_a_number_gets_a_sentence(page: Page) -> None:
    words = page.locator("#training .words")
    page.locator("#seed input").fill("-1")
    expect(words).to_contain_text("seed=-1; expected a whole number from 0")
    expect(button(page, "run")).to_be_disabled()
    page.locator("#seed input").fill("0")
    expect(words).to_contain_text("Press Run")
    expect(button(page, "run")).to_be_enabled()

    noise = page.locator("#noise input[type=number]")
    noise.fill("")
    expect(words).to_contain_text("noise=None; expected a number")
    noise.fill("0.9")
    noise.blur()
    wait_for_label(page, "noise 0.5")

    open_chapter(page, "take_home")
    expect(ask(page, "0.5")).to_contain_text("press Export first")
    button(page, "export").click()
    expect(page.locator("#receipt .verdict")).to_have_count(4)
    expect(ask(page, "abc")).to_contain_text("x='abc' is not a number; expected one such as 0.5")


def test_the_keyboard_reaches_every_control(page: Page) -> None:
    page.locator("#bits input").first.focus()
    reached = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.closest('[id]:not([id^=range])')?.id"))
    page.locator("#bits").get_by_label("8", exact=True).focus()
    page.keyboard.press("Space")
    wait_for_label(page, "INT8")
    assert {"granularity", "scale", "noise", "seed", "run", "step"} <= reached


def open_chapter(page: Page, key: str) -> None:
    menu = page.locator("#nav .menu")
    if menu.is_visible():
        menu.click()
    page.locator(f"#chapter-list a[href*='chapter={key}']").click()
    expect(page.locator(f"#page-{key}")).to_be_visible()


def button(page: Page, name: str) -> Locator:
    return page.locator(f"button#{name}, #{name} button").first


def step(page: Page) -> int:
    return int(page.locator("#training .view").get_attribute("data-step"))


def qat_loss(page: Page) -> float:
    return float(page.locator("[data-loss=qat]").inner_text())


def wait_for_step(page: Page, condition: str) -> None:
    read = "const step = Number(document.querySelector('#training .view').dataset.step)"
    page.wait_for_function(f"() => {{ {read}; return {condition}; }}")


def wait_for_label(page: Page, text: str) -> None:
    page.wait_for_function("text => document.querySelector('#training .view').dataset.label.includes(text)", arg=text)


def ask(page: Page, x: str) -> Locator:
    """Type x, press Ask; the sentence that answers."""
    page.locator("#x input").fill(x)
    button(page, "ask").click()
    return page.locator("#answer .words")


def fits_the_width(page: Page) -> None:
    assert page.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0
