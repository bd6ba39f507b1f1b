"""Chapter "four_bits": the slider of widths."""

import re

import pytest
from playwright.sync_api import Browser, Page, expect
from torch import Tensor

from qat_core import QuantSpec
from qat_core.affine import dequantize, minmax_qparams, quantize
from tests.browser.chapters import done, drawn, fits_the_width, hidden_weights, number, open_chapter

NEURON = hidden_weights()[30]


def rounded(bits: float) -> Tensor:
    if bits == 32:
        return NEURON
    if bits == 16:
        return NEURON.bfloat16().float()
    spec = QuantSpec(bits, "per_tensor")
    scale, zero_point = minmax_qparams(NEURON, spec)
    return dequantize(quantize(NEURON, scale, zero_point, spec.quant_min, spec.quant_max), scale, zero_point)


def error_in_percent(bits: float) -> float:
    return 100 * ((rounded(bits) - NEURON).norm() / NEURON.norm()).item()


def test_every_width_shows_what_qat_core_computes(tab: Page, server: str) -> None:
    requests = open_chapter(tab, server, "four_bits")
    slider = tab.get_by_role("slider", name="Bits per weight")
    expect(slider).to_have_attribute("aria-valuetext", "4 bits, 16 levels")
    assert done(tab) is None
    sizes_are_in_the_table(tab)
    slider.focus()
    tab.keyboard.press("Home")
    for bits, levels in [(1.58, 3), (2, 4), (3, 8), (4, 16), (8, 256), (16, 2**16), (32, 2**32)]:
        expect(slider).to_have_attribute("aria-valuetext", f"{bits} bits, {levels:,} levels")
        shown = tab.locator("#four-bits .figures dd").all_inner_texts()
        assert number(shown[0]) == levels
        assert number(shown[1]) == float(f"{32 / bits:.2g}")
        assert number(shown[2]) == pytest.approx(float(f"{error_in_percent(bits):.2g}"), rel=1e-9)
        drawn(tab)
        lands_on = f"the 64 weights land on {len(rounded(bits).unique())} of them"
        expect(tab.locator("#four-bits svg[role=img]")).to_have_attribute("aria-label", re.compile(lands_on))
        tab.keyboard.press("ArrowRight")
    assert done(tab) == "four_bits"
    assert requests == []
    fits_the_width(tab)


def sizes_are_in_the_table(tab: Page) -> None:
    tab.locator("#four-bits summary").click()
    row = tab.locator("#four-bits tbody tr").filter(has_text="4 bits")
    expect(row.locator("td")).to_have_count(5)  # a table is filled after it has opened
    assert row.locator("td").all_inner_texts()[2:] == ["500 kB", "3.5 GB", "35 GB"]
    fits = tab.locator("#four-bits .size .value")
    expect(fits).to_have_text(["500 kB ✓ fits", "3.5 GB ✓ fits", "35 GB ✗ too large"])


def test_weights_that_do_not_arrive_are_missed_in_words(chromium: Browser, server: str) -> None:
    context = chromium.new_context()
    page = context.new_page()
    page.route("**/pretrained.json", lambda route: route.fulfill(status=503))
    page.goto(f"{server}/?chapter=four_bits")
    alert = page.locator("#four-bits [role=alert]")
    expect(alert).to_contain_text("the weights of the trained network did not arrive (503)")
    page.unroute("**/pretrained.json")
    alert.get_by_role("button", name="Try again").click()
    expect(page.locator("#four-bits svg[role=img]")).to_be_visible()
    expect(alert).to_have_count(0)
    context.close()
