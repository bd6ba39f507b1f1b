"""What a visitor does: train, pause, step, reset, export, download, ask."""

from playwright.sync_api import Locator, Page, Route, expect

WHILE_WE_LOOK = 600  # milliseconds: six frames, were training to go on


def test_a_visit_trains(page: Page) -> None:
    training_pauses_steps_and_stops_when_left(page)
    button(page, "qat-reset").click()
    every_click_counts(page)


def test_the_settings_answer_and_are_reached(page: Page) -> None:
    what_is_typed_fast_is_followed_and_then_there_is_peace(page)
    what_is_not_a_number_gets_a_sentence(page)
    the_keyboard_reaches_every_control(page)


def training_pauses_steps_and_stops_when_left(page: Page) -> None:
    fits_the_width(page)
    assert step(page) == 0
    first_loss = qat_loss(page)

    button(page, "qat-run").click()
    wait_for_step(page, "step > 300")
    assert qat_loss(page) < first_loss

    button(page, "qat-pause").click()
    wait_for_the_end(page)
    paused_at = step(page)
    page.wait_for_timeout(WHILE_WE_LOOK)
    assert step(page) == paused_at

    button(page, "qat-step").click()
    wait_for_step(page, f"step === {paused_at + 1}")

    button(page, "qat-run").click()
    wait_for_step(page, f"step > {paused_at + 100} && step < 2000")

    open_chapter(page, "export")
    open_chapter(page, "qat")
    wait_for_the_end(page)  # a run that nobody sees stops
    button(page, "qat-step").click()
    wait_for_step(page, "step % 10 === 1")
    fits_the_width(page)


def test_reset_and_new_settings_start_at_step_0(page: Page) -> None:
    seed = page.locator("#seed input")
    seed.fill("3")
    wait_for_label(page, "seed 3")
    first_loss = qat_loss(page)
    button(page, "qat-run").click()
    wait_for_step(page, "step > 50")

    button(page, "qat-reset").click()
    wait_for_step(page, "step === 0")
    assert qat_loss(page) == first_loss
    expect(seed).to_have_value("3")

    button(page, "qat-run").click()
    wait_for_step(page, "step > 50")
    page.locator("#bits").get_by_label("2", exact=True).check()
    wait_for_step(page, "step === 0")
    page.wait_for_timeout(WHILE_WE_LOOK)
    assert step(page) == 0


def every_click_counts(page: Page) -> None:
    for _ in range(5):
        button(page, "qat-step").click()
    wait_for_step(page, "step === 5")
    pauses: list[Route] = []
    page.route("**/run/**", lambda route: pauses.append(route))  # on their way, while the next click comes
    for _ in range(3):
        button(page, "qat-run").click()
        with page.expect_request("**/run/**"):
            button(page, "qat-pause").click()
    for pause in pauses:
        pause.continue_()
    page.unroute("**/run/**")
    wait_for_the_end(page)
    assert step(page) < 2000


def what_is_typed_fast_is_followed_and_then_there_is_peace(page: Page) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "/queue/join" in request.url else None)
    page.locator("#seed input").press_sequentially("123")
    wait_for_label(page, "seed 123")
    page.wait_for_timeout(WHILE_WE_LOOK)
    before = len(asked)
    page.wait_for_timeout(WHILE_WE_LOOK)
    assert len(asked) == before


def what_is_not_a_number_gets_a_sentence(page: Page) -> None:
    words = page.locator("#qat .words")
    page.locator("#seed input").fill("-1")
    expect(words).to_contain_text("seed=-1; expected a whole number from 0")
    page.locator("#seed input").fill("0")
    expect(words).to_contain_text("Press Run")

    noise = page.locator("#noise input[type=number]")
    noise.fill("")
    expect(words).to_contain_text("noise is empty; expected a number")
    noise.fill("0.9")
    noise.blur()
    wait_for_label(page, "noise 0.5")


def the_keyboard_reaches_every_control(page: Page) -> None:
    page.locator("#bits input").first.focus()
    reached = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.closest('[id]:not([id^=range])')?.id"))
    page.locator("#bits").get_by_label("8", exact=True).focus()
    page.keyboard.press("Space")
    wait_for_label(page, "INT8")
    assert {"granularity", "scale", "noise", "seed", "qat-run", "qat-step", "preset"} <= reached


def open_chapter(page: Page, key: str) -> None:
    menu = page.locator("#nav .menu")
    if menu.is_visible():
        menu.click()
    page.locator(f"#chapter-list a[href*='chapter={key}']").click()
    expect(page.locator(f"#page-{key}")).to_be_visible()


def button(page: Page, name: str) -> Locator:
    return page.locator(f"button#{name}, #{name} button").first


def step(page: Page) -> int:
    return int(page.locator("#qat .view").get_attribute("data-step"))


def qat_loss(page: Page) -> float:
    return float(page.locator("[data-loss=qat]").inner_text())


def wait_for_step(page: Page, condition: str) -> None:
    read = "const step = Number(document.querySelector('#qat .view').dataset.step)"
    page.wait_for_function(f"() => {{ {read}; return {condition}; }}")


def wait_for_the_end(page: Page) -> None:
    page.locator("#qat .view[data-running=false]").wait_for()


def wait_for_label(page: Page, text: str) -> None:
    page.wait_for_function("text => document.querySelector('#qat .view').dataset.label.includes(text)", arg=text)


def fits_the_width(page: Page) -> None:
    assert page.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0
