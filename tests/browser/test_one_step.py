"""One step, taken apart, as a visitor goes through it."""

import re

from playwright.sync_api import Locator, Page, expect

from tests.browser.chapters import open_page, unfold_settings

STAGES = ["latent", "scale", "divide", "round", "clamp", "dequantize", "layer", "loss", "gradient", "ste"]
STAGES += ["averages", "update", "flip"]

# Labels of the picture's axes that begin left of it, or before the one beside them ends.
CROWDED = """() => [...document.querySelectorAll("#one-step .shown .plot-svg")].filter((svg) => svg.checkVisibility())
    .flatMap((svg) => {
        const labels = [...svg.querySelectorAll("text[text-anchor]:not(.remark)")];
        const boxes = labels.map((label) => [label.textContent, label.getBoundingClientRect()]);
        const left = svg.getBoundingClientRect().left;
        return boxes.filter(([, box], i) => {
            const before = boxes[i - 1]?.[1];
            return box.left < left || (before && before.top === box.top && before.right > box.left);
        }).map(([text]) => text);
    })"""


def test_a_visit_goes_through_the_step_and_takes_it(tab: Page, server: str) -> None:
    open_page(tab, f"{server}/?chapter=one_step")
    settled(tab)
    a_walk_through_the_step_asks_the_server_nothing(tab)
    a_number_says_where_it_comes_from(tab)
    a_weight_is_picked_with_the_keyboard_the_mouse_and_by_name(tab)
    taking_the_step_moves_on_to_what_was_promised(tab)
    the_steps_are_those_of_the_other_chapters(tab)
    learned_scales_block_the_gradient_of_what_they_clamp(tab)
    fits_the_width(tab)


def a_walk_through_the_step_asks_the_server_nothing(chapter: Page) -> None:
    settled(chapter)
    asked: list[str] = []
    chapter.on("request", lambda request: asked.append(request.url))
    following, back = button(chapter, "Next"), button(chapter, "Back")
    expect(back).to_be_disabled()
    seen = [stage(chapter)]
    for _ in STAGES[1:]:
        following.click()
        seen.append(stage(chapter))
        fits_the_width(chapter)
    assert seen == STAGES
    expect(button(chapter, "Take the step")).to_be_enabled()
    expect(chapter.locator("#one-step mark.code-line").first).to_be_visible()
    back.click()
    assert stage(chapter) == "update"
    assert [url for url in asked if "gradio_api/queue" in url or "gradio_api/run" in url] == []


def taking_the_step_moves_on_to_what_was_promised(chapter: Page) -> None:
    chapter.locator("#one-step .loop button").last.click()
    promised = numbers(chapter, "new w")
    button(chapter, "Take the step").click()
    wait_for_step(chapter, 1)
    assert stage(chapter) == "latent"
    assert numbers(chapter, "w") == promised
    button(chapter, "25 steps").click()
    wait_for_step(chapter, 26)
    expect(chapter.locator("#one-step .step")).to_have_text("Step 27 of 2,000, seen from inside")


def a_weight_is_picked_with_the_keyboard_the_mouse_and_by_name(chapter: Page) -> None:
    matrix, caption = chapter.locator("#one-step .heatmap"), chapter.locator("#one-step .caption")
    row, col = place(caption)
    matrix.focus()
    chapter.keyboard.press("ArrowLeft" if col else "ArrowRight")
    chapter.keyboard.press("ArrowUp" if row else "ArrowDown")
    expected = (row + (-1 if row else 1), col + (-1 if col else 1))
    assert place(caption) == expected
    tells(chapter, *expected)

    box = matrix.bounding_box()
    assert box
    matrix.click(position={"x": box["width"] - 2, "y": box["height"] - 2})
    assert place(caption) == (63, 63)
    tells(chapter, 63, 63)

    button(chapter, "Largest gradient").click()
    tells(chapter, row, col)
    expect(button(chapter, "Clamped hardest")).to_be_disabled()

    button(chapter, "64 → 1").click()
    expect(matrix).to_have_attribute("aria-label", re.compile("1 rows, 64 columns"))
    fits_the_width(chapter)


def a_number_says_where_it_comes_from(chapter: Page) -> None:
    chapter.locator("#one-step .loop button").first.click()
    button(chapter, "Next").click()
    tip = chapter.locator("#one-step [role=tooltip]")
    expect(tip).to_be_hidden()
    number = chapter.locator("#one-step .formula .number").last
    number.focus()
    expect(tip).to_contain_text("Scale of the layer. In full: 0.0")
    assert number.get_attribute("aria-describedby") == tip.get_attribute("id")
    chapter.keyboard.press("Escape")
    expect(tip).to_be_hidden()


def learned_scales_block_the_gradient_of_what_they_clamp(chapter: Page) -> None:
    chapter.locator("#bits").get_by_label("4", exact=True).click()
    chapter.locator("#scale").get_by_label("learned").click()
    wait_for_step(chapter, 0)
    button(chapter, "25 steps").click()
    wait_for_step(chapter, 25)
    button(chapter, "64 → 64").click()
    expect(button(chapter, "Clamped hardest")).to_be_enabled()
    settled(chapter)
    button(chapter, "Clamped hardest").click()
    chapter.get_by_label(re.compile("^The straight-through estimator")).click()
    expect(chapter.locator("#one-step .formula")).to_contain_text("∂L/∂w := ∂L/∂ŵ")
    expect(chapter.locator("#one-step .stage .words")).to_contain_text("the gradient is blocked")
    button(chapter, "Next").click()
    assert stage(chapter) == "scale_gradient"
    for chip in chapter.locator("#one-step .loop button").all():  # far from the grid the axis is long
        chip.click()
        assert chapter.evaluate(CROWDED) == [], stage(chapter)


def the_steps_are_those_of_the_other_chapters(chapter: Page) -> None:
    open_chapter(chapter, "QAT")
    expect(chapter.locator("#qat .view")).to_have_attribute("data-step", "26")
    chapter.locator("#qat-step").click()
    expect(chapter.locator("#qat .view")).to_have_attribute("data-step", "27")
    open_chapter(chapter, "One step, taken apart")
    wait_for_step(chapter, 27)
    unfold_settings(chapter)
    settings = chapter.locator("#bits").get_by_label("8", exact=True)
    settings.click()
    wait_for_step(chapter, 0)
    expect(chapter.locator("#one-step .code-scale")).to_contain_text("127")


def open_chapter(page: Page, title: str) -> None:
    menu = page.locator("#nav .menu")
    if menu.is_visible():
        menu.click()
    page.locator("#nav li a").filter(has_text=title).click()


def button(page: Page, name: str) -> Locator:
    return page.locator("#one-step").get_by_role("button", name=name, exact=True)


def stage(page: Page) -> str:
    return page.locator("#one-step .view").get_attribute("data-stage") or ""


def numbers(page: Page, chip: str) -> str:
    item = page.locator("#one-step .loop button").filter(has=page.get_by_text(chip, exact=True))
    return item.locator(".value").inner_text()


def wait_for_step(page: Page, step: int) -> None:
    expect(page.locator("#one-step .view")).to_have_attribute("data-step", str(step))


def place(caption: Locator) -> tuple[int, int]:
    found = re.fullmatch(r"Row (\d+), column (\d+): code \D?\d+\.", caption.inner_text())
    assert found
    return int(found[1]), int(found[2])


def tells(page: Page, row: int, col: int) -> None:
    """The first number of the first stage comes from that weight."""
    page.locator("#one-step .loop button").first.click()
    number = page.locator("#one-step .formula .number").first
    tip = page.locator("#one-step [role=tooltip]")
    settled(page)
    number.focus()
    expect(tip).to_contain_text(f"row {row}, column {col},")
    page.evaluate("document.activeElement.blur()")


def settled(page: Page) -> None:
    """The last answer of the server is drawn."""
    expect(page.locator("#one-step .view")).to_have_attribute("aria-busy", "false")


def fits_the_width(page: Page) -> None:
    assert page.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0
