"""What a visitor does with a file: export it, look into it, download it, check it, ask it."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper
from playwright.sync_api import Page, expect

from app.chapters.export.chapter import HERE
from export import check
from export.read.draw.nibbles import offset_of
from export.read.graph import Graph
from export.read.web import runtime
from tests.browser.chapters import MINUS, done, is_question, open_page, unfold_settings
from tests.browser.test_page import button, fits_the_width, open_chapter

PATIENCE = 60_000  # an export on a busy machine


@pytest.fixture
def page(tab: Page, server: str) -> Page:
    """The chapter "Export", drawn, with nothing exported."""
    open_page(tab, f"{server}/?chapter=export")
    expect(tab.locator("#exported .words")).to_contain_text("No file yet")
    return tab


def test_a_visit_from_the_export_to_the_answer(page: Page, tmp_path: Path) -> None:
    open_chapter(page, "onnxruntime")
    button(page, "ask").click()
    expect(page.locator("#answer .words")).to_contain_text("press Export in the chapter before", timeout=PATIENCE)
    open_chapter(page, "export")
    button(page, "export").click()
    expect(page.locator("#exported .onnx-graph")).to_be_visible(timeout=PATIENCE)
    assert done(page) == "export"
    path = downloaded(page, "download", tmp_path)
    expect(button(page, "download-ort")).to_be_enabled(timeout=PATIENCE)
    assert "MatMulNBits" in {n.op_type for n in onnx.load(downloaded(page, "download-ort", tmp_path)).graph.node}
    fits_the_width(page)

    look_at_the_graph(page, path)
    look_at_the_bytes(page, path)
    look_at_the_nibbles(page, path)
    what_is_shown_says_of_which_network_it_is(page)

    open_chapter(page, "onnxruntime")
    verdicts = page.locator("#parity .verdict")
    expect(verdicts).to_have_count(4, timeout=PATIENCE)
    assert set(verdicts.all_inner_texts()) <= {"✓ exact", "✓ rounding"}
    button(page, "check").click()
    expect(page.locator("#parity .words")).to_contain_text("The receipt holds", timeout=PATIENCE)
    assert done(page) == "onnxruntime"
    page.locator("#x input").fill("0.7")
    button(page, "ask").click()
    answer = page.locator("#answer .words")
    expect(answer).to_contain_text("For x = 0.7 the file answers", timeout=PATIENCE)
    on_page = float(re.search(r"answers (-?[\d.]+\d)", answer.inner_text().replace(MINUS, "-"))[1])
    (in_file,) = onnxruntime.InferenceSession(path).run(None, {"input": np.array([[0.7]], np.float32)})
    assert abs(on_page - in_file.item()) < 1e-5
    page.locator("#x input").fill("abc")
    button(page, "ask").click()
    expect(answer).to_contain_text("x='abc' is not a number; expected one such as 0.5", timeout=PATIENCE)
    the_file_answers_in_this_browser_too(page, path)
    fits_the_width(page)


def the_file_answers_in_this_browser_too(page: Page, path: Path) -> None:
    """Nothing comes before the click, and once it is there nobody is asked for an answer."""
    loaded: list[str] = page.evaluate("performance.getEntriesByType('resource').map(({ name }) => name)")
    assert not [name for name in loaded if runtime.VERSION in name or "export/read/web" in name]
    words = page.locator("#browser .words").first
    if not runtime.is_here():
        button(page, "check-here").click()
        expect(words).to_contain_text("is not installed beside this page")
        return
    page.route("**/*.wasm.gz", lambda _: None)  # never answered
    button(page, "check-here").click()
    page.locator("#browser").get_by_role("button", name="Cancel").click()
    expect(words).to_have_text("Cancelled. Nothing was checked.")
    page.unroute("**/*.wasm.gz")
    button(page, "check-here").click()
    expect(words).to_contain_text("The receipt holds in this browser, too: 137 promised answers")
    rows = page.locator("#browser tbody tr").all_inner_texts()
    assert [row.split()[0] for row in rows] == ["PyTorch", "The", "This"] * 2
    assert [row.count("✓") for row in rows] == [0, 1, 1] * 2
    fits_the_width(page)

    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if is_question(request.url) else None)
    page.context.set_offline(True)
    session, answer = onnxruntime.InferenceSession(path), page.locator("#browser .asker .words")
    for text in ("0.7", "-2,5", "1e3"):
        page.locator("#browser input").fill(text)
        x = float(text.replace(",", "."))
        expect(answer).to_contain_text(f"For x = {x:g} this browser answers".replace("-", MINUS))
        on_page = float(re.search(r"answers (-?[\d.]+\d)", answer.inner_text().replace(MINUS, "-"))[1])
        (in_file,) = session.run(None, {"input": np.array([[x]], np.float32)})
        assert on_page == pytest.approx(in_file.item(), rel=1e-5, abs=1e-5)
    page.locator("#browser input").fill("abc")
    expect(answer).to_contain_text("x='abc' is not a number; expected one such as 0.5")
    assert asked == []
    page.context.set_offline(False)


def downloaded(page: Page, name: str, folder: Path) -> Path:
    with page.expect_download() as download:
        button(page, name).click()
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    assert check(path).ok
    return path


def look_at_the_graph(page: Page, path: Path) -> None:
    graph = page.locator("#exported .onnx-graph")
    operators = [node.op_type for node in onnx.load(path).graph.node]
    found = graph.locator(".op .title, .qdq .title").all_text_contents()
    assert sorted(found) == sorted(operators)
    assert "DequantizeLinear" in graph.locator("> desc").text_content()
    assert page.locator("#exported :is(script, style, a)").count() == 0


def look_at_the_bytes(page: Page, path: Path) -> None:
    totals = page.locator("#exported .bars .total").all_inner_texts()
    assert int(totals[1].replace(",", "")) == path.stat().st_size
    label = page.locator("#exported .bars").get_attribute("aria-label")
    assert f"{path.stat().st_size:,} bytes" in label


def look_at_the_nibbles(page: Page, path: Path) -> None:
    """Every way to a code leads to the one that lies there in the file."""
    tensors, data = Graph.open(path).packed, path.read_bytes()
    shown = page.locator("#exported select")
    assert shown.input_value() == "2.weight"
    cells = page.locator("#exported .map")
    cells.focus()
    for key, index in (("ArrowRight", 1), ("ArrowDown", 65), ("End", 4095), ("PageUp", 3583), ("Home", 0)):
        page.keyboard.press(key)
        assert int(cells.get_attribute("aria-valuenow")) == index
        tensor = tensors["2.weight"]
        place = offset_of(tensor.tensor, data) + index // 2
        assert page.locator("#exported .byte").inner_text().split() == [
            "byte",
            f"{place:,}",
            f"0x{data[place]:02x}",
            *(f"{data[place]:08b}"[half : half + 4] for half in (0, 4)),
        ]
        reading = page.locator("#exported .reading").inner_text().replace(MINUS, "-")
        code, value = re.search(r"is code (-?\d+) and stands for (\S+)\.$", reading).groups()
        assert int(code) == tensor.codes[index]
        assert float(value) == pytest.approx(float(tensor.values[index]), rel=1e-5)
    frame = cells.bounding_box()
    cells.hover(position={"x": frame["width"] * 10.5 / 64, "y": frame["height"] * 3.5 / 64})
    assert cells.get_attribute("aria-valuenow") == str(3 * 64 + 10)
    shown.select_option("0.weight")
    assert cells.get_attribute("aria-valuemax") == "63"


def what_is_shown_says_of_which_network_it_is(page: Page) -> None:
    words = page.locator("#exported .outdated")
    expect(words).to_have_text("")
    unfold_settings(page)
    page.locator("#bits").get_by_label("2", exact=True).check()
    expect(words).to_contain_text("are of INT4 per tensor, seed 0, noise 0.1, step 0. The page has moved on to INT2")
    page.locator("#bits").get_by_label("4", exact=True).check()
    expect(words).to_have_text("")


def test_codes_of_every_width_are_unpacked_as_onnx_packs_them(in_module: Callable[..., Any]) -> None:
    for signed in (True, False):
        for bits in (2, 4, 8):
            dtype = onnx.TensorProto.DataType.Value(f"{'' if signed else 'U'}INT{bits}")
            low = -(2 ** (bits - 1)) if signed else 0
            codes = list(range(low, low + 2**bits))
            array = np.array(codes).astype(onnx.helper.tensor_dtype_to_np_dtype(dtype))
            data = list(numpy_helper.from_array(array).raw_data)
            unpack = (
                "({ codeAt }, [data, bits, signed, count]) => "
                "Array.from({ length: count }, (_, i) => codeAt(Uint8Array.from(data), i, bits, signed))"
            )
            found = in_module(HERE / "nibbles.js", unpack, [data, bits, signed, len(codes)])
            assert found == codes


def test_names_from_a_file_cannot_bring_scripts_into_the_page(in_module: Callable[..., Any]) -> None:
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" onload="boom()"><style>*{}</style><script>boom()</script>'
        '<a href="javascript:boom()"><text>no</text></a><foreignObject/><text onclick="boom()" x="1">yes</text></svg>'
    )
    found = in_module(HERE / "picture.js", "({ pictureOf }, svg) => pictureOf(svg).outerHTML", svg)
    assert found == '<svg><text x="1">yes</text></svg>'
