"""Chapter "rounding": a weight on the stairs, a matrix on its levels, and which error is which."""

import pytest
import torch
from playwright.sync_api import Locator, Page, expect
from torch import Tensor

from qat_core import QuantSpec
from qat_core.affine import dequantize, minmax_qparams, qparams_of_range, quantize, round_to_codes
from tests.browser.chapters import done, drag, drawn, fits_the_width, hidden_weights, number, open_chapter

WEIGHTS = hidden_weights()


def handle(tab: Page, name: str) -> Locator:
    return tab.get_by_role("slider", name=name)


def press(tab: Page, name: str, key: str) -> None:
    handle(tab, name).focus()
    tab.keyboard.press(key)
    drawn(tab)


def shown(tab: Page) -> tuple[list[float], str]:
    """The six numbers of the pipeline, and the kind of the error."""
    values = tab.locator("#rounding .pipeline .value").all_inner_texts()
    return [number(text) for text in values], tab.locator("#rounding .pipeline .name").last.inner_text()


def pipeline(w: float, scale: Tensor, zero_point: Tensor | None, spec: QuantSpec) -> tuple[list[float], str]:
    weight = torch.tensor(w)
    unclamped = round_to_codes(weight, scale, zero_point)
    code = quantize(weight, scale, zero_point, spec.quant_min, spec.quant_max)
    value = dequantize(code, scale, zero_point)
    numbers = [weight, weight / scale, unclamped, code, value, value - weight]
    digits = [3, 2, 0, 0, 3, 3]
    rounded = [float(f"{n.item():.{d}f}") for n, d in zip(numbers, digits, strict=True)]
    return rounded, "rounding error" if code == unclamped else "clipping error"


def table(tab: Page) -> list[int]:
    return [int(number(text)) for text in tab.locator("#rounding tbody td:last-child").all_inner_texts()]


def counts(scale: Tensor, zero_point: Tensor | None, spec: QuantSpec) -> list[int]:
    codes = quantize(WEIGHTS.flatten(), scale, zero_point, spec.quant_min, spec.quant_max)
    return torch.bincount((codes - spec.quant_min).long(), minlength=spec.levels).tolist()


def test_a_visit_asks_the_server_nothing(tab: Page, server: str) -> None:
    requests = open_chapter(tab, server, "rounding")
    assert done(tab) is None
    a_weight_is_dragged_along_the_stairs(tab)
    assert done(tab) == "rounding"
    fits_the_width(tab)
    the_ends_of_the_range_make_the_grid(tab)
    one_scale_or_one_for_each_row(tab)
    which_error_is_which(tab)
    assert requests == []
    fits_the_width(tab)


def a_weight_is_dragged_along_the_stairs(tab: Page) -> None:
    spec, scale = QuantSpec(4, "per_tensor"), torch.tensor(0.12)
    name = "Weight, on the stairs"
    kinds = set()
    for by in (-30, 45, 300):
        drag(tab, handle(tab, name), by)
        drawn(tab)
        w = float(handle(tab, name).get_attribute("aria-valuenow") or "nan")
        found, kind = shown(tab)
        expected, expected_kind = pipeline(w, scale, None, spec)
        assert found == pytest.approx(expected, abs=0.0011)
        assert kind == expected_kind
        kinds.add(kind)
        assert handle(tab, "Weight, and its error").get_attribute("aria-valuenow") == str(w)
    assert kinds == {"rounding error", "clipping error"}


def the_ends_of_the_range_make_the_grid(tab: Page) -> None:
    for key, times in (("Home", 1), ("PageUp", 15), ("ArrowRight", 6)):
        for _ in range(times):
            press(tab, "Weight, on the stairs", key)
    assert shown(tab)[0][0] == 0.31
    tab.locator("#rounding summary").click()
    press(tab, "Upper end of the range", "End")
    spec = QuantSpec(4, "per_tensor")
    scale, zero_point = qparams_of_range(torch.tensor(-1.25), torch.tensor(1.25), spec)
    assert shown(tab) == pipeline(0.31, scale, zero_point, spec)
    assert table(tab) == counts(scale, zero_point, spec)

    tab.locator("#rounding").get_by_label("asymmetric", exact=True).check(force=True)
    tab.locator("#rounding").get_by_label("3", exact=True).check(force=True)
    press(tab, "Upper end of the range", "End")
    press(tab, "Lower end of the range", "Home")
    spec = QuantSpec(3, "per_tensor", symmetric=False)
    scale, zero_point = qparams_of_range(torch.tensor(-1.25), torch.tensor(1.25), spec)
    assert shown(tab) == pipeline(0.31, scale, zero_point, spec)
    assert table(tab) == counts(scale, zero_point, spec)

    press(tab, "zero_point", "ArrowRight")
    assert zero_point is not None
    assert shown(tab) == pipeline(0.31, scale, zero_point + 1, spec)
    assert table(tab) == counts(scale, zero_point + 1, spec)


def one_scale_or_one_for_each_row(tab: Page) -> None:
    for label, granularity in (("per channel", "per_channel"), ("per tensor", "per_tensor")):
        tab.locator("#granularity-strips").get_by_label(label, exact=True).check(force=True)
        for bits in (2, 8):
            tab.locator("#granularity-strips").get_by_label(str(bits), exact=True).check(force=True)
            spec = QuantSpec(bits, granularity)  # type: ignore[arg-type]
            grid = minmax_qparams(WEIGHTS, spec)
            values = dequantize(quantize(WEIGHTS, *grid, spec.quant_min, spec.quant_max), *grid)
            error, zeros, scales = map(number, tab.locator("#granularity-strips dd").all_inner_texts())
            assert error == pytest.approx((values - WEIGHTS).square().mean().item(), rel=0.07)
            assert (zeros, scales) == ((values == 0).sum(), grid[0].numel())


def which_error_is_which(tab: Page) -> None:
    answers = []
    for box in tab.locator("#mistakes .mistake").all():
        box.get_by_label("rounding").check(force=True)
        answers.append(box.locator(".verdict").inner_text()[0])
    assert answers == ["✓", "✗", "✓", "✗"]
    last = tab.locator("#mistakes .mistake").last
    last.get_by_label("clipping").check(force=True)
    expect(last.locator(".verdict")).to_contain_text("7.6 steps round to 8; the last code is 7")
