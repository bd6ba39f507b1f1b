"""Chapter "your turn" as a visitor meets it: draw, bring a file, train, take it home, answer."""

import itertools
import json
import re
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from playwright.sync_api import Page, Route, expect

from tests.browser.chapters import done, drawn, fits_the_width, open_chapter, unfold_settings

TRAINED = 60_000  # milliseconds


def test_a_visit_answers_draws_trains_and_takes_it_home(tab: Page, server: str, tmp_path: Path) -> None:
    requests = open_chapter(tab, server, "your_turn")
    fits_the_width(tab)
    the_questions_are_answered_with_the_keyboard(tab)
    a_curve_is_drawn_learned_and_taken_home(tab, requests, tmp_path)
    points_are_brought_or_refused_with_a_sentence(tab, tmp_path)
    the_listing_follows_the_settings(tab)
    fits_the_width(tab)


def a_curve_is_drawn_learned_and_taken_home(tab: Page, requests: list[str], tmp_path: Path) -> None:
    before = points(tab)
    asked = len(requests)
    pad = tab.locator("#your-turn svg.pad")
    pad.scroll_into_view_if_needed()
    box = pad.bounding_box()
    assert box
    middle = box["y"] + box["height"] / 2
    tab.mouse.move(box["x"] + 70, middle)
    tab.mouse.down()
    tab.mouse.move(box["x"] + box["width"] - 30, middle - 60, steps=15)
    tab.mouse.up()
    after = points(tab)
    assert [x for x, _ in after] == [x for x, _ in before]
    inner = [y for x, y in after if -0.8 < x < 0.8]
    assert all(low <= high + 1e-3 for low, high in itertools.pairwise(inner))  # the line goes up

    pad.focus()
    tab.keyboard.press("Home")
    tab.keyboard.press("ArrowUp")
    expect(pad).to_have_attribute("role", "slider")
    assert points(tab)[0][1] == pytest.approx(min(after[0][1] + 0.05, 1), abs=1e-3)
    assert len(requests) == asked  # drawing asks nobody

    tab.locator("#your-train").click()
    tab.wait_for_function(
        "() => Number(document.querySelector('#your-turn .view').dataset.step) >= 50", timeout=TRAINED
    )
    tab.evaluate("document.querySelector('#your-pause').click()")  # nothing happens if it has just ended
    expect(tab.locator("#your-turn .view")).to_have_attribute("data-running", "false", timeout=TRAINED)
    expect(tab.locator("#your-turn [data-error=qat]")).to_have_text(re.compile(r"^[0-9.]+$"))
    tab.locator("#your-export").click()
    expect(tab.locator("#your-turn .words")).to_contain_text("optimization levels onnxruntime", timeout=TRAINED)
    with tab.expect_download() as download:
        tab.locator("#your-download").click()
    path = tmp_path / download.value.suggested_filename
    download.value.save_as(path)
    session = onnxruntime.InferenceSession(path)
    (answers,) = session.run(None, {session.get_inputs()[0].name: np.array([[-1.0], [1.0]], np.float32)})
    assert np.isfinite(answers).all()


def test_a_click_waits_for_the_curve_to_be_drawn(tab: Page, server: str) -> None:
    held: list[Route] = []
    tab.route("**/your_turn.js", lambda route: held.append(route))
    with tab.expect_request("**/your_turn.js"):
        tab.goto(f"{server}/?chapter=your_turn")
    tab.locator("#your-train").click()
    held[0].continue_()
    tab.wait_for_function("() => Number(document.querySelector('#your-turn .view').dataset.step) > 0", timeout=TRAINED)
    tab.locator("#your-pause").click()
    expect(tab.locator("#your-turn .view")).to_have_attribute("data-running", "false", timeout=TRAINED)


def points_are_brought_or_refused_with_a_sentence(tab: Page, tmp_path: Path) -> None:
    words = tab.locator("#your-turn .words")
    tab.locator(".bring summary").click()
    chosen = tab.get_by_label("A CSV file with the columns x and y")
    huge = tmp_path / "huge.csv"
    with huge.open("wb") as file:
        file.truncate(100_000_000)
    for name, data, sentence in (
        ("good.csv", "\ufeffyear;price\n1990;1,5\n1995;2\n2000;2,5\n2005;9\n", "4 points read. Press Train."),
        ("text.csv", "x,y\n1,2\n2,many\n", "text.csv, line 3: y='many' is not a number"),
        ("huge.csv", None, "huge.csv has 100,000,000 bytes; expected at most 1,000,000"),
    ):
        path = tmp_path / name
        if data is not None:
            path.write_text(data, encoding="utf-8")
        chosen.set_input_files(path)
        expect(words).to_contain_text(sentence, timeout=TRAINED)
    assert points(tab) == [[1990, 1.5], [1995, 2], [2000, 2.5], [2005, 9]]

    tab.get_by_label("or type them, a line each").fill("0 1\n1 2\n2 nan\n")
    tab.get_by_role("button", name="Use these").click()
    expect(words).to_contain_text("your text, line 3: y='nan'; expected a finite number", timeout=TRAINED)
    tab.get_by_label("or type them, a line each").fill("0 1\n1 2\n2 3\n3 4")
    tab.get_by_role("button", name="Use these").click()
    expect(words).to_contain_text("4 points read", timeout=TRAINED)
    assert points(tab) == [[0, 1], [1, 2], [2, 3], [3, 4]]

    tab.get_by_label("zigzag").check()
    drawn(tab)
    assert len(points(tab)) == 129


def the_questions_are_answered_with_the_keyboard(tab: Page) -> None:
    questions = tab.locator(".quiz fieldset")
    score = tab.locator(".quiz .score")
    tab.locator("button.check").focus()
    tab.keyboard.press("Enter")
    expect(score).to_have_text("0 of 6 right. No answer yet: questions 1, 2, 3, 4, 5, 6.")
    questions.nth(0).locator("input").first.focus()
    for _ in range(6):
        tab.keyboard.press("Space")
        tab.keyboard.press("ArrowDown")  # the second answer
        tab.keyboard.press("Tab")
    tab.keyboard.press("Enter")
    expect(score).to_have_text("2 of 6 right. Change an answer and check again.")
    expect(questions.nth(0)).to_contain_text("✓ right")
    expect(questions.nth(1)).to_contain_text("✗ not this one")
    expect(questions.nth(1).locator(".why")).to_have_text(
        "The loss is the same, and it is that of the rounded network."
    )
    assert done(tab) == "your_turn"
    for grading in tab.locator(".quiz .grading:not(:empty)").all():
        grading.scroll_into_view_if_needed()
        expect(grading).to_be_in_viewport(ratio=1)
    for i, right in enumerate((1, 2, 0, 1, 0, 2)):
        questions.nth(i).locator("input").nth(right).check()
    tab.locator("button.check").click()
    expect(score).to_have_text("6 of 6 right. That is all of it.")


def the_listing_follows_the_settings(tab: Page) -> None:
    code = tab.locator("#your-module code")
    expect(code).to_contain_text('spec = QuantSpec(bits=4, granularity="per_tensor")\n')
    unfold_settings(tab)
    tab.locator("#bits").get_by_label("2", exact=True).check()
    expect(code).to_contain_text('spec = QuantSpec(bits=2, granularity="per_tensor")\n')


def points(page: Page) -> list[list[float]]:
    drawn(page)
    drawing = json.loads(page.locator("#your-turn .view").get_attribute("data-points") or "")
    found: list[list[float]] = drawing["points"]
    return found
