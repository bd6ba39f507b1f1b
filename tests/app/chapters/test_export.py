"""Chapters "Export" and "onnxruntime" without a browser: one file, made in the first and questioned in the second."""

import base64
import inspect
import json
import re
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from app.chapters.export import chapter as export
from app.chapters.onnxruntime import chapter as onnxruntime
from app.chapters.onnxruntime import speed
from app.chapters.onnxruntime.anywhere import answer
from app.lab.fit import Settings
from app.runs import exported as exports
from app.runs.exported import Exported
from app.runs.progress import Progress
from export import KernelError, ParityReport, audit

DEFAULTS = (4, "per_tensor", 0.1, 0)  # bits, granularity, noise, seed: as on the page


@pytest.fixture(scope="module")
def fresh() -> Progress:
    return Progress.start(Settings())


@pytest.fixture(scope="module")
def outputs(fresh: Progress) -> tuple[Any, ...]:
    """What the last yield of an export sends to the page."""
    return list(export.export_file(None, fresh, *DEFAULTS))[-1]


@pytest.fixture
def exported(outputs: tuple[Any, ...]) -> Exported:
    file: Exported = outputs[1]
    return file


@pytest.fixture
def frame(outputs: tuple[Any, ...]) -> dict[str, Any]:
    shown: dict[str, Any] = json.loads(outputs[0], parse_constant=pytest.fail)
    return shown


def test_the_bytes_shown_are_those_of_the_file(frame: dict[str, Any], exported: Exported, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(exported.model)
    sizes = frame["sizes"]
    parts = [size for name, size in sizes.items() if name not in ("file", "minimum", "fp32")]
    assert sum(parts) == sizes["file"] == len(exported.model)
    assert sizes["minimum"] == audit(path).minimum_bytes < sizes["file"] < sizes["fp32"] == 4 * 4353
    assert sizes["file"] <= 1.03 * sizes["minimum"] + 4096


def test_the_nibbles_shown_are_those_of_the_file(frame: dict[str, Any], exported: Exported) -> None:
    stored = {t.name: numpy_helper.to_array(t) for t in onnx.load_model_from_string(exported.model).graph.initializer}
    assert [weight["name"] for weight in frame["weights"]] == ["0.weight", "2.weight", "4.weight"]
    for weight in frame["weights"]:
        data = base64.b64decode(weight["bytes"])
        assert exported.model[weight["offset"] : weight["offset"] + len(data)] == data
        codes = stored[weight["name"]].astype(np.float32)
        np.testing.assert_array_equal(
            np.frombuffer(base64.b64decode(weight["values"]), "<f4").reshape(codes.shape),
            codes * stored[f"{weight['name']}_scale"],
        )


def test_the_picture_is_whole(frame: dict[str, Any]) -> None:
    titles = [text.text for text in ET.fromstring(frame["graph"]).iter("{http://www.w3.org/2000/svg}text")]
    assert titles.count("DequantizeLinear") == titles.count("Gemm") == 3


def test_the_quick_twin_comes_second_with_a_report_of_its_own(outputs: tuple[Any, ...], exported: Exported) -> None:
    assert exported.quick is not None
    assert exported.quick_report is not None
    assert exported.quick_report.ok
    operators = {node.op_type for node in onnx.load_model_from_string(exported.quick).graph.node}
    assert operators == {"MatMulNBits", "Relu"}
    words = json.loads(outputs[0])["words"]
    assert words.startswith(f"{exported.name}: {exported.label}. It has learned nothing yet: press Run")
    assert f"takes {len(exported.quick):,} bytes" in words
    assert outputs[4].interactive


def test_where_there_is_no_quick_kernel_the_page_says_why(fresh: Progress, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Exported(fresh.settings, 0, fresh.label, "name.onnx", b"", ParityReport([0.0], []))

    def refuse(progress: Progress, flavor: str) -> tuple[bytes, ParityReport]:
        raise ValueError(f"flavor={flavor!r} has a quick kernel for no layer")

    monkeypatch.setattr(exports, "_export", refuse)
    assert made.why_not_quick == "it is still being made"
    tried = exports.with_quick(made, fresh)
    assert (tried.quick, tried.why_not_quick) == (None, "flavor='ort' has a quick kernel for no layer")


def test_what_is_shown_of_a_wide_network_is_limited() -> None:
    frames = export.export_file(None, Progress.start(Settings()), *DEFAULTS, "minmax", 96, 0.01)
    _, outputs = next(frames), next(frames)
    frames.close()
    weight = json.loads(outputs[0])["weights"][1]
    assert weight["elements"] == 96 * 96
    assert len(base64.b64decode(weight["values"])) == 4 * export.CODES_SHOWN


def test_the_folder_of_the_file_is_gone_when_gradio_has_its_copy(
    fresh: Progress, exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(export, "export_now", lambda progress: replace(exported, quick=None))
    monkeypatch.setattr(export, "with_quick", lambda made, progress: exported)
    one, other = (export.export_file(None, fresh, *DEFAULTS) for _ in range(2))
    next(one), next(other)
    for files in (2, 4):  # the file of each, then with its twin
        next(one), next(other)
        found = list(tmp_path.glob("qat-*/*.onnx"))
        assert (len(found), len({path.parent for path in found})) == (files, 2)
    assert (list(one), list(other)) == ([], [])
    assert not list(tmp_path.glob("qat-*"))


def test_a_bad_setting_exports_nothing_and_keeps_the_last_file(exported: Exported, fresh: Progress) -> None:
    *_, outputs = export.export_file(exported, fresh, 4, "per_tensor", 0.1, -1)
    assert "Nothing was exported: seed=-1; expected" in json.loads(outputs[0])["words"]
    assert outputs[1] is exported


def test_export_honours_settings_that_the_state_has_not_seen(
    fresh: Progress, exported: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Settings] = []
    monkeypatch.setattr(export, "export_now", lambda progress: asked.append(progress.settings) or exported)
    monkeypatch.setattr(export, "with_quick", lambda made, progress: made)
    list(export.export_file(None, fresh, 8, "per_channel", 0.1, 0))
    assert asked == [Settings(bits=8, granularity="per_channel")]


def test_gradio_notices_another_file_and_only_that(exported: Exported) -> None:
    assert hash(exported) == hash(replace(exported))
    assert hash(exported) != hash(replace(exported, model=b"other"))
    assert exported.quick
    assert hash(exported) == hash(replace(exported, quick=None))  # the twin that comes later puts nothing away


# --- onnxruntime ----------------------------------------------------------------------------------


def test_all_four_levels_are_shown_with_an_outcome(exported: Exported) -> None:
    shown = json.loads(onnxruntime.show_file(exported)[0])
    assert [level["level"] for level in shown["levels"]] == ["disable_all", "basic", "extended", "all"]
    assert {level["outputs"] for level in shown["levels"]} == {384}
    assert shown["outcome"] in ("exact", "rounding")
    said = {
        "exact": "Exact: 384 outputs are equal bit for bit",
        "rounding": r"Equal up to float rounding: (1 ulp|[\d.]+ ulps) at most",
    }
    assert re.match(said[shown["outcome"]], shown["verdict"])
    assert shown["evidence"].startswith("Not proven: ")  # activations are in float
    assert dict(shown["receipt"])["Layers"].startswith("0, 2, 4: ")


def test_the_receipt_is_recomputed_and_tampering_is_told(exported: Exported) -> None:
    shown = json.loads(onnxruntime.check_receipt(exported))
    assert shown["words"].startswith("The receipt holds: 137 promised answers")
    model = onnx.load_model_from_string(exported.model)
    (bias,) = (t for t in model.graph.initializer if t.name == "4.bias")
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + np.float32(1), "4.bias"))
    shown = json.loads(onnxruntime.check_receipt(replace(exported, model=model.SerializeToString())))
    assert shown["problem"]
    assert "beside the codes was changed" in shown["words"]


def test_without_a_file_there_is_nothing_to_show_ask_or_check(fresh: Progress) -> None:
    for shown in (
        onnxruntime.show_file(None)[0],
        onnxruntime.check_receipt(None),
        onnxruntime.ask_file("0.5", None, fresh),
        next(onnxruntime.measure_speed(None))[0],
    ):
        assert "press Export in the chapter before" in json.loads(shown)["words"]


def test_an_x_is_answered_with_a_point(exported: Exported, fresh: Progress) -> None:
    shown = json.loads(onnxruntime.ask_file(" 0,5 ", exported, fresh))
    assert shown["words"].startswith("For x = 0.5 the file answers")
    assert "moved on" not in shown["words"]
    assert shown["point"]["x"] == 0.5
    assert not shown["problem"]


def test_an_answer_says_when_training_has_moved_on(exported: Exported, fresh: Progress) -> None:
    *_, later = fresh.advance(until=1)
    words = json.loads(onnxruntime.ask_file("0.5", exported, later))["words"]
    assert words.endswith("The file is of step 0; training has moved on to step 1.")
    other = Progress.start(Settings(bits=8))
    words = json.loads(onnxruntime.ask_file("0.5", exported, other))["words"]
    assert "The file is of INT4 per tensor, seed 0, noise 0.1, step 0; the page has moved on to INT8" in words


@pytest.mark.parametrize("text", ["abc", "", "0,5,1", "nan", "inf", "1e39", "0.5 0.6"])
def test_what_is_not_a_number_is_named(exported: Exported, fresh: Progress, text: str) -> None:
    shown = json.loads(onnxruntime.ask_file(text, exported, fresh))
    assert shown["problem"]
    assert f"x={text!r}" in shown["words"]
    assert "expected" in shown["words"]


def test_speed_is_shown_for_the_visitors_network_and_a_large_one(
    exported: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speed, "WIDTH", 64)
    monkeypatch.setattr(speed, "_large", [])
    *_, (shown, _) = onnxruntime.measure_speed(exported)
    own, large = json.loads(shown)["groups"]
    for group in (own, large):
        assert [row["flavor"] for row in group["rows"]] == ["fp32", "qdq", "ort"]
        assert all(row["milliseconds"] > 0 for row in group["rows"])
        assert all("float32" in row["compared"] for row in group["rows"])
    assert own["rows"][0]["bytes"] == 4 * (64 + 64 + 64 * 64 + 64 + 64 + 1)  # weights and biases of 1-64-64-1
    assert [row["bytes"] for row in own["rows"][1:]] == [len(exported.model), len(exported.quick or b"")]
    assert [row["answers"] for row in own["rows"][1:]] == [exported.report.outcome, exported.quick_report.outcome]
    monkeypatch.setattr(speed.export, "export_onnx", None)  # the large network is measured once
    assert speed.large_network()[2].bytes == large["rows"][2]["bytes"]


def test_a_machine_without_the_quick_kernel_says_so(exported: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> list[speed.Speed]:
        raise KernelError("no MatMulNBits here")

    monkeypatch.setattr(onnxruntime, "large_network", refuse)
    *_, (shown, button) = onnxruntime.measure_speed(exported)
    frame = json.loads(shown)
    assert (frame["problem"], len(frame["groups"]), button.interactive) == (True, 1, True)
    assert "no MatMulNBits here" in frame["words"]


def test_the_lines_that_are_shown_run_the_file_without_torch(exported: Exported, tmp_path: Path) -> None:
    path = tmp_path / exported.name
    path.write_bytes(exported.model)
    code = (
        f"import sys\nsys.modules['torch'] = None\n{inspect.getsource(answer)}\nprint(answer({str(path)!r}, [0.5, -1]))"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert json.loads(done.stdout) == exported.answer([0.5, -1])
    lines = [line for line in inspect.getsource(answer).splitlines() if line.strip()]
    assert len(lines) <= 10


def test_the_prose_names_only_commands_that_exist() -> None:
    prose = (onnxruntime.HERE / "text.md").read_text()
    commands = re.findall(r"python -m export (\w+)", prose)
    assert set(commands) == {"check", "pack"}
    for command in commands:
        subprocess.run([sys.executable, "-m", "export", command, "--help"], check=True, capture_output=True)
