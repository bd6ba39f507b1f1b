"""The frame: every chapter in turn, their addresses, and what a visitor takes along."""

import re
from itertools import pairwise
from typing import Literal
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Locator, Page, Request, expect

from app.chapters import CHAPTERS
from app.settings import NAMES
from app.ui import KEYS, TITLE
from tests.browser.chapters import drawn, open_page, unfold_settings

START, FIRST, *_, LAST = CHAPTERS
WITH_SETTINGS = next(c for c in CHAPTERS if {"bits", "seed"} <= set(c.uses))
MOST_BYTES = 600_000
WHILE_WE_LISTEN = 2_000  # milliseconds
SERIOUS = ("serious", "critical")
# All of them once; those that look at colours again in the dark.
RULES: dict[Literal["light", "dark"], dict[str, object]] = {
    "light": {"resultTypes": ["violations"]},
    "dark": {"resultTypes": ["violations"], "runOnly": ["color-contrast", "link-in-text-block"]},
}
# axe walks through all of a document, so the chapters that are not shown are taken out of it meanwhile.
VIOLATIONS = """async ([key, rules]) => {
    await Promise.all(document.getAnimations().map((a) => a instanceof CSSTransition && a.finished));
    const others = [...document.querySelectorAll(".page")].filter(({ id }) => id !== `page-${key}`);
    const places = others.map(() => document.createComment(""));
    others.forEach((page, i) => page.replaceWith(places[i]));
    const { violations } = await axe.run(rules);
    places.forEach((place, i) => place.replaceWith(others[i]));
    return violations;
}"""
DRAWN = """key => [...document.querySelectorAll(`#page-${key} .view`)]
    .filter(view => view.offsetWidth).every(view => view.childElementCount)"""


@pytest.mark.timeout(600)
def test_every_chapter_is_drawn_fits_and_is_accessible(tab: Page, server: str) -> None:
    """The colours change while the page is open, as some screens do in the evening."""
    open_page(tab, server)
    tab.evaluate(Axe().axe_script)
    found = []
    for key in KEYS:
        open_chapter(tab, key)
        assert tab.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0, f"{key} is too wide"
        for scheme, rules in RULES.items():
            tab.emulate_media(color_scheme=scheme)
            expect(tab.locator("body.dark")).to_have_count(int(scheme == "dark"))
            drawn(tab)
            for violation in tab.evaluate(VIOLATIONS, [key, rules]):
                if violation["impact"] in SERIOUS:
                    found += [f"{key}, {scheme}: {violation['id']}: {n['html'][:200]}" for n in violation["nodes"]]
    assert not found, "\n".join(found)


@pytest.mark.timeout(600)
def test_every_chapter_is_reached_and_left_with_the_keyboard(tab: Page, server: str) -> None:
    open_page(tab, f"{server}/?chapter={FIRST.key}")
    title(tab, FIRST.title)
    for chapter, following in pairwise(CHAPTERS[1:]):
        tab.wait_for_function(DRAWN, arg=chapter.key)
        press_tab_to(tab, ".pager .next")
        tab.keyboard.press("Enter")
        title(tab, following.title)
        expect(tab.locator("#chapter-title")).to_be_focused()
    press_tab_to(tab, ".pager .previous")
    tab.keyboard.press("Enter")
    title(tab, CHAPTERS[-2].title)


def test_a_visit_goes_from_the_front_door_to_every_chapter(tab: Page, server: str) -> None:
    open_page(tab, server)
    tab.locator("#chapter-list").wait_for(state="attached")
    the_first_stop_of_the_keyboard_skips_to_the_chapter(tab)
    a_chapter_opens_at_once(tab)
    open_link(tab, START.key)
    the_menu_counts_as_the_list_does(tab)


def the_first_stop_of_the_keyboard_skips_to_the_chapter(tab: Page) -> None:
    tab.keyboard.press("Tab")
    expect(tab.locator(".skip")).to_be_focused()
    expect(tab.locator(".skip")).to_be_in_viewport()
    tab.keyboard.press("Enter")
    expect(tab.locator("#chapter-title")).to_be_focused()


def a_chapter_opens_at_once(tab: Page) -> None:
    """Before the click has returned, so no server was asked."""
    visible = """key => {
        document.querySelector(`#chapter-list a[href*="chapter=${key}"]`).click();
        return [...document.querySelectorAll(".page")].filter((page) => page.checkVisibility()).map(({ id }) => id);
    }"""
    assert [tab.evaluate(visible, key) for key in KEYS] == [[f"page-{key}"] for key in KEYS]
    tab.wait_for_function(DRAWN, arg=LAST.key)


def the_menu_counts_as_the_list_does(tab: Page) -> None:
    assert tab.locator("#nav .menu").text_content() == START.title  # which is not counted
    for number, chapter in enumerate(CHAPTERS[1:]):
        tab.evaluate("key => document.querySelector(`#chapter-list a[href*='chapter=${key}']`).click()", chapter.key)
        assert tab.locator("#nav .menu").text_content() == f"Chapter {number}: {chapter.title}"


def test_a_chapter_has_an_address_and_back_returns(tab: Page, server: str) -> None:
    tab.goto(f"{server}/?chapter={LAST.key}")
    title(tab, LAST.title)
    assert tab.title() == f"{LAST.title} · {TITLE}"
    open_chapter(tab, FIRST.key)
    assert parse_qs(urlsplit(tab.url).query)["chapter"] == [FIRST.key]
    tab.go_back()
    title(tab, LAST.title)
    tab.go_forward()
    title(tab, FIRST.title)
    others = [key for key in KEYS if key != FIRST.key and tab.locator(f"#page-{key}").is_visible()]
    assert others == []


@pytest.mark.usefixtures("own_tab")  # with nothing in its cache
def test_the_page_is_small_and_loads_only_the_open_chapter(tab: Page, server: str) -> None:
    sizes: list[int] = []
    modules: list[str] = []

    def note(request: Request) -> None:
        sizes.append(request.sizes()["responseBodySize"])
        modules.append(urlsplit(request.url).path.rpartition("/")[2])

    tab.on("requestfinished", note)
    tab.goto(f"{server}/?chapter={FIRST.key}")
    tab.wait_for_function(DRAWN, arg=FIRST.key)
    tab.locator("#chapter-list").wait_for(state="attached")
    tab.wait_for_timeout(WHILE_WE_LISTEN)
    assert 100_000 < sum(sizes) < MOST_BYTES
    assert "nav.js" in modules
    assert not {f"{key}.js" for key in KEYS if key != FIRST.key} & set(modules)


def test_what_is_done_is_ticked_and_stays_so(tab: Page, server: str) -> None:
    tab.goto(f"{server}/?chapter={FIRST.key}")
    title(tab, FIRST.title)
    tab.locator(".pager .next").click()
    tab.evaluate("key => window.dispatchEvent(new CustomEvent('chapter-done', { detail: key }))", LAST.key)
    tab.evaluate("window.dispatchEvent(new CustomEvent('chapter-done', { detail: 'nowhere' }))")
    title(tab, CHAPTERS[2].title)
    for page in (tab, again(tab)):
        ticked = page.locator("#chapter-list li:has(.tick:not([hidden]))")
        expect(ticked).to_have_count(2)
        assert [FIRST.title in ticked.first.text_content(), LAST.title in ticked.last.text_content()] == [True, True]


def test_settings_are_in_the_address_and_survive_a_reload(tab: Page, server: str) -> None:
    tab.goto(f"{server}/?chapter={WITH_SETTINGS.key}")
    unfold_settings(tab)
    tab.locator("#seed input").fill("7")
    tab.locator("#bits").get_by_label("2", exact=True).check()
    tab.wait_for_url(re.compile(r"bits=2&?.*seed=7|seed=7&?.*bits=2"))
    page = again(tab)
    expect(page.locator("#seed input")).to_have_value("7")
    expect(page.locator("#bits").get_by_label("2", exact=True)).to_be_checked()


def test_a_link_opens_the_same_page_for_somebody_else(tab: Page, server: str) -> None:
    tab.context.grant_permissions(["clipboard-read", "clipboard-write"])
    tab.goto(f"{server}/?chapter={WITH_SETTINGS.key}&bits=3&noise=0.25&width=32")
    expect(tab.locator("#width input")).to_have_value("32")
    open_menu(tab)
    tab.get_by_role("button", name="Copy link").click()
    expect(tab.locator(".link-tools > [role=status]")).to_have_text("Copied.")
    link = urlsplit(tab.evaluate("navigator.clipboard.readText()"))
    assert parse_qs(link.query) == {"chapter": [WITH_SETTINGS.key], "bits": ["3"], "noise": ["0.25"], "width": ["32"]}


def test_a_link_for_a_class_fixes_and_hides_settings(tab: Page, server: str) -> None:
    tab.goto(f"{server}/?chapter={WITH_SETTINGS.key}&bits=2")
    unfold_settings(tab)
    expect(tab.locator("#bits")).to_be_visible()
    open_menu(tab)
    tab.get_by_role("button", name="Link for a class").click()
    dialog = tab.get_by_role("dialog")
    for named in ("Bits per weight2", "One scaleper tensor", "Scale frommin-max"):  # as on the page
        expect(dialog.get_by_text(named)).to_be_visible()
    dialog.get_by_role("checkbox", name="bits").check()
    expect(dialog.get_by_role("checkbox", name="bits")).to_have_css("appearance", "auto")  # a tick that is seen
    dialog.get_by_role("checkbox", name="seed").check()
    address = dialog.locator("input.address")
    expect(address).to_have_value(re.compile("seed=0"))  # as soon as the page knows its settings
    link = address.input_value()
    query = parse_qs(urlsplit(link).query)
    assert (query["hide"], query["bits"], query["seed"]) == (["bits,seed"], ["2"], ["0"])
    tab.keyboard.press("Escape")
    expect(dialog).to_be_hidden()

    page = beside(tab, link)
    title(page, WITH_SETTINGS.title)
    unfold_settings(page)
    expect(page.locator("#granularity")).to_be_visible()
    expect(page.locator("#bits")).to_be_hidden()
    expect(page.locator("#seed")).to_be_hidden()
    expect(page.locator("#bits").get_by_label("2", exact=True)).to_be_checked()


def test_a_hostile_address_is_answered_with_sentences(tab: Page, server: str) -> None:
    hostile = {
        "seed": "<img src=x onerror=\"document.title='broken in'\">",
        "bits": "${1+1}",
        "chapter": "'];document.title='broken in';['",
        "noise": "`${document.title='broken in'}`",
        "hide": "<script>document.title='broken in'</script>",
        "width": "9" * 3000,
    }
    tab.goto(f"{server}/?{urlencode(hostile)}")
    order = sorted(hostile, key=[*NAMES, "chapter", "hide"].index)
    expect(tab.locator(".notices p")).to_have_text([re.compile(f"^{name}=.*; expected ") for name in order])
    assert tab.locator("#heading img, #heading script").count() == 0
    assert tab.title() == f"{START.title} · {TITLE}"


def again(tab: Page) -> Page:
    """The same address in the same browser."""
    return beside(tab, tab.url)


def beside(tab: Page, address: str) -> Page:
    """An address in the same browser. (To leave the page would abort Gradio's requests, which it reports as errors.)"""
    page = tab.context.new_page()
    page.goto(address)
    page.locator("#chapter-list").wait_for(state="attached")
    return page


def open_menu(tab: Page) -> None:
    """The list of chapters, which a phone hides behind a button."""
    menu = tab.locator("#nav .menu")
    tab.locator("#chapter-list").wait_for(state="attached")
    if menu.is_visible() and menu.get_attribute("aria-expanded") == "false":
        menu.click()


def open_link(tab: Page, key: str) -> None:
    open_menu(tab)
    tab.locator(f"#chapter-list a[href*='chapter={key}']").click()


def open_chapter(tab: Page, key: str) -> None:
    """Through the list, and wait until it is drawn."""
    open_link(tab, key)
    expect(tab.locator(f"#page-{key}")).to_be_visible()
    tab.wait_for_function(DRAWN, arg=key)


def title(tab: Page, text: str) -> None:
    expect(tab.locator("#chapter-title")).to_have_text(text)


def press_tab_to(tab: Page, selector: str) -> Locator:
    """The keyboard gets there: no trap, and not too far."""
    for _ in range(250):
        tab.keyboard.press("Tab")
        if tab.evaluate("selector => document.activeElement.matches(selector)", selector):
            return tab.locator(selector)
    raise AssertionError(f"the keyboard did not reach {selector}")
