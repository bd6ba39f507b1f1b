"""The page that is handed on with a model says what `python -m export check` says, in a Chromium without a server."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from playwright.sync_api import Browser, Page
from torch import nn

from export import FileError, ParityError, ReceiptError, check, export_onnx
from export.__main__ import main
from export.read.web import runtime
from qat_core import QATConfig, QuantSpec
from tests.export.models import W4, W4A8, Tagger, prepared
from tests.export.read.test_receipt import (
    edit_receipt,
    flip_one_code,
    forge_receipt,
    forge_sample,
    move,
    replace_an_operator,
    write_receipt,
)
from tests.export.read.test_rewritten import another_order, other_names

POWERS = QATConfig(QuantSpec(power_of_two=True), QuantSpec.activation(power_of_two=True))
GROUPS = QuantSpec(granularity="per_group", group_size=32)
ROUNDED_IN_THE_KERNEL = QATConfig(GROUPS, QuantSpec(8, "per_group", group_size=32, dynamic=True))
EDITS = {  # name -> edit, and what both say of it
    "code": (flip_one_code, "the integer codes were changed: the SHA-256 is"),
    "bias": (
        move("2.bias", 0.01),
        "something beside the codes was changed, a scale, a bias or an operator: the SHA-256",
    ),
    "scale": (move("0.weight_scale", 0.001), "something beside the codes was changed"),
    "operator": (replace_an_operator, "something beside the codes was changed"),
    "no receipt": (lambda m: m.ClearField("metadata_props"), "the file has no receipt: it was not made by export_onnx"),
    "format": (edit_receipt(format=99), "the receipt has format 99; expected"),
    "edited": (edit_receipt(tolerances=[1.0]), "the receipt was changed: its SHA-256 is"),
    "unsigned": (edit_receipt(sha256=None), "the receipt was changed: its SHA-256 is"),
    "no samples": (forge_receipt(samples=[]), "the receipt cannot be understood: no sample; expected one or more"),
    "words": (write_receipt("not JSON"), "the receipt cannot be understood: "),
    "two tolerances": (forge_receipt(tolerances=[1e-5] * 2), "expected as many of each"),
    "shape": (
        forge_sample(inputs=[{"dtype": "float32", "shape": [5, 2], "low": -1, "high": 1, "seed": 0}]),
        "answers in",
    ),
    "huge": (
        forge_sample(inputs=[{"dtype": "float32", "shape": [2**50, 2], "low": -1, "high": 1, "seed": 0}]),
        "cannot be",
    ),
    "strict": (forge_receipt(tolerances=[0.0]), ""),
    "another order": (another_order, ""),
    "other names": (other_names, ""),
}


@pytest.fixture(scope="module")
def page(chromium: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    file = tmp_path_factory.mktemp("handed on") / "check.html"
    try:
        runtime.fetch()
    except runtime.MissingError as error:
        pytest.skip(str(error))
    assert main(["pack", str(file)]) == 0
    assert file.stat().st_size < 6e6
    page = chromium.new_page(viewport={"width": 390, "height": 900})
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda sent: problems.append(sent.url) if sent.url.startswith("http") else None)
    page.goto(file.as_uri())
    yield page
    assert page.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0
    page.close()
    assert problems == []


def said(page: Page, *files: Path) -> list[str]:
    """What the page says of files, in their order."""
    page.evaluate("document.querySelector('main').replaceChildren()")
    page.locator("input").set_input_files(files)
    page.wait_for_function("(n) => document.querySelectorAll('article[class]').length === n", arg=len(files))
    return [article.inner_text() for article in reversed(page.locator("article").all())]


def test_it_says_of_whole_files_what_the_check_says(page: Page, tmp_path: Path) -> None:
    paths = [tmp_path / f"{name}.onnx" for name in ("weights", "W4A8", "powers", "quick", "words", "opset 25")]
    x = torch.randn(64, 64)

    def net() -> nn.Module:
        return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 3))

    written: list[tuple[Any, Any, dict[str, Any]]] = [
        (prepared(net(), W4, x), x, {}),
        (prepared(net(), W4A8, x), x, {}),
        (prepared(net(), POWERS, x), x, {}),
        (prepared(net(), QATConfig(GROUPS), x), x, {"flavor": "ort"}),
        (prepared(Tagger(), W4, torch.randint(10, (4, 5))), torch.randint(10, (4, 5)), {}),
        (prepared(net(), QATConfig(QuantSpec(2)), x), x, {"opset_version": 25}),
    ]
    for path, (model, inputs, options) in zip(paths, written, strict=True):
        export_onnx(model, inputs, path, **options)
    for path, words in zip(paths, said(page, *paths), strict=True):
        report = check(path)
        assert report.holds
        assert f"the receipt holds in this browser (tolerance {report.tolerance:.3g})" in words
        rows = re.findall(r"^(disable_all|basic|extended|all)\t(.+)\t(.+)\t(.+)\t(\d+)\t(\d+)$", words, re.MULTILINE)
        assert [int(row[-1]) for row in rows] == [level.outputs for level in report.levels]
        if report.outcome == "exact":
            assert {row[1:5] for row in rows} == {("0", "0", "0", "0")}
            assert report.verdict in words
    assert check(paths[2]).outcome == "exact"


def test_it_says_what_is_wrong_with_others(page: Page, tmp_path: Path) -> None:
    whole, x = tmp_path / "whole.onnx", torch.randn(16, 2)
    export_onnx(prepared(nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 1)), W4, x), x, whole)
    paths = []
    for name, (edit, _) in EDITS.items():
        model = onnx.load(whole)
        model = edit(model) or model
        paths.append(tmp_path / f"{name}.onnx")
        paths[-1].write_bytes(model.SerializeToString())
    for path, (_, sentence), words in zip(paths, EDITS.values(), said(page, *paths), strict=True):
        if sentence:
            with pytest.raises((ReceiptError, FileError, ParityError), match=re.escape(sentence)):
                check(path)
            assert sentence in words
        else:
            report = check(path)
            verdict = "the receipt holds" if report.holds else "the receipt does NOT hold"
            assert (f"rewritten, answers kept ({report.rewritten})," if report.rewritten else verdict) in words
    words, table = tmp_path / "words.onnx", tmp_path / "table.onnx"
    export_onnx(prepared(Tagger(), W4, torch.randint(10, (4, 5))), torch.randint(10, (4, 5)), words)
    model = onnx.load(words)
    (codes,) = (t for t in model.graph.initializer if t.name == "words.weight")
    codes.raw_data = bytes(255 - byte for byte in codes.raw_data)
    table.write_bytes(model.SerializeToString())
    with pytest.raises(ReceiptError, match="the integer codes were changed"):
        check(table)
    holds, differs = said(page, words, table)
    assert "the receipt holds" in holds
    assert "something was changed, a code, a scale, a bias or an operator: the SHA-256 is" in differs
    half, text = tmp_path / "half.onnx", tmp_path / "text.onnx"
    half.write_bytes(whole.read_bytes()[:1000])
    text.write_text("Hello.")
    assert ["not a whole ONNX file" in words for words in said(page, half, text)] == [True, True]


def test_it_says_what_a_file_needs_that_a_browser_has_not(page: Page, tmp_path: Path) -> None:
    path, newer, x = tmp_path / "rounded.onnx", tmp_path / "newer.onnx", torch.randn(64, 64)
    model = prepared(nn.Sequential(nn.Linear(64, 32)), ROUNDED_IN_THE_KERNEL, x)
    export_onnx(model, x, path, flavor="ort")
    file = onnx.load(path)
    forge_receipt(requires={"onnxruntime": "9.1"})(file)
    newer.write_bytes(file.SerializeToString())
    rounded, refused = said(page, path, newer)
    assert "the receipt does NOT hold in this browser" in rounded
    assert "this file needs a processor with AVX2 and a session with prepacked weights" in rounded
    assert refused.endswith(f"this file needs onnxruntime 9.1 or newer; this is {runtime.VERSION}.")
