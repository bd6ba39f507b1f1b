"""Chapter "ste": one x on the stairs and on the ramp, and the pulls on a learned scale."""

import json
import re

import pytest
import torch
from playwright.sync_api import Locator, Page, expect

from app.components.module import STATIC
from qat_core import QuantSpec, STEQuantize
from qat_core.lsq import LSQuantize
from tests.browser.chapters import done, drag, drawn, fits_the_width, hidden_weights, number, open_chapter

SPEC = QuantSpec(3, "per_tensor")
SCALE = torch.tensor(0.25)


def at(handle: Locator) -> float:
    return float(handle.get_attribute("aria-valuenow") or "nan")


def slopes(tab: Page) -> list[str]:
    drawn(tab)
    return tab.locator("#ste .slope .value").all_inner_texts()


def ste_gradient(x: float) -> float:
    latent = torch.tensor(x, requires_grad=True)
    STEQuantize.apply(latent, SCALE, None, SPEC.quant_min, SPEC.quant_max).backward()
    assert latent.grad is not None
    return latent.grad.item()


def test_a_visit_asks_the_server_nothing(tab: Page, server: str) -> None:
    requests = open_chapter(tab, server, "ste")
    three_slopes_at_one_x(tab)
    fits_the_width(tab)
    an_edge_has_no_gradient(tab)
    pulls_on_a_learned_scale(tab)
    the_measured_rates_are_drawn_and_said(tab)
    the_code_that_runs_is_shown(tab)
    assert requests == []
    fits_the_width(tab)


def three_slopes_at_one_x(tab: Page) -> None:
    x = tab.get_by_role("slider", name="x, in the forward pass")
    mirrored = tab.get_by_role("slider", name="x, in the backward pass")
    assert done(tab) is None

    for by in (-60, 25, 200, -400):
        drag(tab, x, by)
        drawn(tab)
        assert at(x) == at(mirrored)
        _, truth, ste = slopes(tab)
        assert number(truth) == 0
        assert number(ste) == ste_gradient(at(x))
    assert ste_gradient(at(x)) == 0  # the last drag ended beyond the stairs
    assert done(tab) == "ste"

    x.focus()
    tab.keyboard.press("Home")
    drawn(tab)
    assert at(x) == -1.5
    for _ in range(6):
        tab.keyboard.press("PageUp")
    drawn(tab)
    assert at(x) == 0

    reach = tab.get_by_role("slider", name="h, the distance")
    reach.focus()
    tab.keyboard.press("End")
    difference, _, ste = slopes(tab)
    assert number(difference) == pytest.approx((0.75 - -1) / 2, abs=0.006)  # from end to end of the stairs
    tab.keyboard.press("Home")
    difference, _, ste = slopes(tab)
    assert (number(difference), number(ste)) == (0, 1)


def an_edge_has_no_gradient(tab: Page) -> None:
    x = tab.get_by_role("slider", name="x, in the forward pass")
    x.focus()
    tab.keyboard.press("End")
    for _ in range(4):
        tab.keyboard.press("PageDown")
    tab.keyboard.press("ArrowRight")
    for expected in ("0.00", "0.00", "0.00", "0.00", "undefined", "0.00"):  # 0.525, 0.55 ... 0.625, 0.65
        assert slopes(tab)[1:] == [expected, "1.00"]
        tab.keyboard.press("ArrowRight")
    drawn(tab)
    assert at(x) == pytest.approx(0.675)


def pulls_on_a_learned_scale(tab: Page) -> None:
    weights = hidden_weights().flatten()
    spec = QuantSpec(4, "per_tensor", scale="learned")
    handle = tab.get_by_role("slider", name="Scale of the whole matrix")
    handle.focus()
    tab.keyboard.press("Home")
    for _ in range(4):
        tab.keyboard.press("PageUp")
        drawn(tab)
        scale = torch.tensor(2.0 ** at(handle)).requires_grad_()
        y = LSQuantize.apply(weights.clone(), scale, None, spec.quant_min, spec.quant_max)
        (0.5 * (y - weights).square().sum()).backward()
        shown = [number(text) for text in tab.locator("#lsq .regions td").all_inner_texts()]
        counts, sums = shown[::2], shown[1::2]
        assert scale.grad is not None
        assert sum(sums) == pytest.approx(scale.grad.item(), abs=0.002)
        codes = (weights / scale.detach()).round()
        assert counts == [(codes < -8).sum(), ((codes >= -8) & (codes <= 7)).sum(), (codes > 7).sum()]
        direction = "smaller" if scale.grad > 0 else "larger"
        expect(tab.locator("#lsq svg[role=img]").nth(1)).to_have_attribute("aria-label", re.compile(direction))


def the_measured_rates_are_drawn_and_said(tab: Page) -> None:
    kept = json.loads((STATIC / "data" / "rates.json").read_text(encoding="utf-8"))
    words = tab.locator("#rates .words")
    expect(words).to_contain_text("where it should")
    for errors in kept["errors"]:
        for start in (0, kept["starts"].index(0), -1):
            assert float(f"{errors[start][0]:.2g}") in map(float, re.findall(r"[\d.]*\d", words.inner_text()))
    assert all(line.get_attribute("d") for line in tab.locator("#rates path.line[d]").all()[-len(kept["errors"]) :])
    tab.locator("#rates summary").click()
    expect(tab.locator("#rates tbody tr")).to_have_count(len(kept["starts"]))


def the_code_that_runs_is_shown(tab: Page) -> None:
    code = tab.locator("#page-ste .listing pre").first
    expect(code).to_contain_text("ctx.save_for_backward(unclamped)")
    expect(code).to_have_attribute("tabindex", "0")
