"""The front door, and how the page fits where it is opened: a phone, an iframe, paper, the visitor's own colours."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from app.chapters import CHAPTERS
from app.components.module import STATIC
from app.lab import recorded
from app.lab.fit import MODELS, Settings
from tests.browser.chapters import open_page

STEP = "Number(document.querySelector('#start .stage').dataset.step)"
LEAST_SEEN = 0.9  # of the chart
IN_VIEW = """() => {
    const seen = ({ top, bottom, height }) => (Math.min(bottom, innerHeight) - Math.max(top, 0)) / height;
    const shown = (nodes) => [...nodes].find((node) => node.clientHeight && node.checkVisibility());
    const page = [...document.querySelectorAll(".page")].find((one) => one.checkVisibility());
    const control = shown(page.querySelectorAll(".run-buttons button, a.way")), lead = document.querySelector(".lead");
    const rects = [shown(page.querySelectorAll("svg.plot-svg")), control].map((node) => node.getBoundingClientRect());
    return [...rects.map(seen), lead.getBoundingClientRect().bottom <= rects[1].top];
}"""
DRAWN = """key => document.querySelector(`#page-${key} svg.plot-svg`)?.clientWidth &&
    [...document.querySelectorAll(`#page-${key} .run-buttons button, #page-${key} a.way`)]
        .some((one) => one.clientHeight)"""
NO_MOTION = """async () => {
    const at = document.querySelector("script[src$='page/address.js']").src.replace("static/page/address.js", "");
    const view = document.body.appendChild(document.createElement("div"));
    await (await import(`${at}chapters/start/start.js`)).mount(view, { value: "{}" });
    const { step } = view.querySelector(".stage").dataset;
    view.remove();
    return Number(step);
}"""
HAS_MOVED = f"""const look = () => {{
    if (document.querySelector("#start .stage")) window.hasMoved ||= {STEP} > 0 && {STEP} < 2000;
    requestAnimationFrame(look);
}};
look();"""
only_once = pytest.mark.parametrize("tab", [1280], indirect=True, ids=["once"])


@pytest.mark.usefixtures("own_tab")  # it has a script added
def test_the_first_screen_moves_by_itself_and_leads_on(tab: Page, server: str) -> None:
    tab.add_init_script(HAS_MOVED)  # on a busy machine it may be over before it is asked
    tab.goto(server)
    tab.wait_for_function("window.hasMoved")
    assert tab.evaluate("document.documentElement.lang") == "en"
    assert tab.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    tab.wait_for_function(f"{STEP} === 2000")
    expect(tab.locator("#start .words")).to_contain_text("step 2,000 of 2,000. Error: FP32 0.0")

    tab.emulate_media(reduced_motion="reduce")
    assert tab.evaluate(NO_MOTION) == 2000
    tab.wait_for_function("window.networkIsKnown")
    tab.get_by_role("link", name="See it happen").click()
    expect(tab.locator("#chapter-title")).to_have_text("QAT")
    tab.wait_for_function("Number(document.querySelector('#qat .view')?.dataset.step) > 20")


@only_once
@pytest.mark.parametrize("size", [(390, 844), (900, 600), (1280, 720)], ids=str)
def test_the_chart_is_in_view_with_what_is_pressed(tab: Page, server: str, size: tuple[int, int]) -> None:
    width, height = size
    tab.set_viewport_size({"width": width, "height": height})
    open_page(tab, f"{server}/?chapter=qat&seed=3" + ("&embed=1" if size == (900, 600) else ""))
    assert tab.locator("#nav, #pager, footer").filter(visible=True).count() == (0 if size == (900, 600) else 3)
    for key in ("start", "fp32", "ptq", "your_turn", "qat"):
        tab.evaluate(
            "async (key) => (await import(document.querySelector(`script[src$='address.js']`).src)).go(key)", key
        )
        tab.wait_for_function(DRAWN, arg=key)
        chart, control, lead_is_first = tab.evaluate(IN_VIEW)
        assert (key, chart >= LEAST_SEEN, control, lead_is_first) == (key, True, 1, True), chart
    is_small = size != (1280, 720)
    fold = tab.locator("#more-settings button")
    expect(tab.locator("#seed")).to_be_visible(visible=not is_small)
    expect(fold).to_have_text(
        "Settings · 4 bits · per tensor · min-max · noise 0.1 · seed 3" if is_small else "More settings"
    )
    fold.click()
    expect(tab.locator("#learning_rate")).to_be_visible()

    tab.evaluate("scrollTo(0, document.body.scrollHeight)")
    tab.evaluate("document.querySelector('#qat-run').click()")
    assert max(tab.evaluate(IN_VIEW)[:1]) >= 0.6

    tab.emulate_media(forced_colors="active")
    chosen, other = (
        tab.locator(f"#bits {which} + span").first.evaluate("node => getComputedStyle(node).backgroundColor")
        for which in ("input:checked", "input:not(:checked)")
    )
    assert chosen != other
    tab.emulate_media(forced_colors="none", media="print")
    expect(tab.locator("#qat .plot").first).to_be_visible()
    for node in ("#nav", "#qat-run", "#settings"):
        expect(tab.locator(node)).to_be_hidden()


def test_every_chapter_says_first_what_it_is_about() -> None:
    assert all(20 < len(chapter.lead) < 180 and chapter.lead.endswith(".") for chapter in CHAPTERS)


def test_the_recorded_run_is_the_lab_s_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """As far as a test trains: another processor ends elsewhere, since 2,000 steps multiply the last bit of a sum."""
    kept = json.loads((STATIC / "data" / "recorded.json").read_text(encoding="utf-8"))
    assert [frame["step"] for frame in kept["frames"]] == [
        step for step in range(0, 2001, 10) if recorded.is_shown(step)
    ]
    monkeypatch.setattr("app.lab.pretrained.Settings", lambda: Settings(steps=20))
    path = tmp_path / "recorded.json"
    assert recorded.main([str(path)]) == 0
    fresh = json.loads(path.read_text(encoding="utf-8"))
    assert fresh["noisy"] == kept["noisy"]
    for ours, theirs in zip(fresh["frames"][:1], kept["frames"][:1], strict=True):
        for name in MODELS:
            assert ours["curves"][name] == pytest.approx(theirs["curves"][name], abs=1)
    last = kept["frames"][-1]["error"]
    assert last["ptq"] > 50 * last["qat"]  # the lesson


def test_charts_take_a_third_of_the_window(in_module: Callable[..., Any]) -> None:
    ask = """({ heightInView }, heights) => heights.map((height) => {
        Object.defineProperty(window, "innerHeight", { value: height, configurable: true });
        return heightInView();
    })"""
    assert in_module(STATIC / "charts" / "plot.js", ask, [400, 600, 720, 844, 2000]) == [190, 200, 240, 281, 300]
