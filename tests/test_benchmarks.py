"""The page of results says what was measured, and our side of it still runs."""

import json
import sys

import pytest

from benchmarks import ours
from benchmarks.peers import run
from benchmarks.report import FILE, report
from benchmarks.results import load
from benchmarks.sections import SECTIONS, digits, files, latency, tasks
from benchmarks.task import QUICK, Effort


def test_the_page_is_what_the_kept_figures_say():
    assert FILE.read_text() == report({section: load(section) for section in SECTIONS}, Effort())


@pytest.fixture
def measured(monkeypatch, capsys):
    """What the runner prints about us."""

    def measure(section, *options):
        monkeypatch.setattr(sys, "argv", ["run", "ours", section, "--quick", *options])
        with monkeypatch.context() as kept:
            kept.setattr(sys, "stdout", sys.stdout)  # put back what the runner turns away from libraries
            run.main()
        return list(map(json.loads, capsys.readouterr().out.splitlines()))

    return measure


def test_our_recipes_still_run(measured):
    setup, *rows = measured("accuracy")
    assert setup["total"] == len(rows)
    assert {row["bits"] for row in rows} >= {1.58, 2, 3, 4}
    assert all("error" not in row for row in rows)


def test_a_run_goes_on_after_the_rows_that_are_there(measured):
    first, rest = (measured("memory", f"--skip={rows}") for rows in (0, 4))
    assert first[0] == rest[0]
    assert first[5:] == rest[1:] != []


@pytest.mark.parametrize("bits", files.KINDS.values(), ids=files.KINDS)
def test_our_files_are_written_in_every_form(monkeypatch, bits):
    monkeypatch.setattr(files, "WIDTH", 32)
    kind = next(kind for kind, found in files.KINDS.items() if found == bits)
    form = ours.forms(*bits)[-1]
    row = files.measure(ours, {"kind": kind, "form": form}, QUICK)
    assert row["differing"] == [0] * 4
    assert row["bytes"] < 4 * files.LAYERS * 32 * 33 + 8000
    assert row["speed_1"][1] <= row["speed_1"][0] <= row["speed_1"][2]


def test_a_file_that_failed_fills_its_row():
    rows = {"modelopt": [{"kind": "W4", "form": "", "failed": "Fail: a | in /tmp/x/quantized.onnx"}]}
    (line,) = (line for line in files.render(rows).splitlines() if line.startswith("| W4 | ModelOpt |"))
    assert line.startswith("| W4 | ModelOpt | Fail: a / in quantized.onnx |")
    assert len(line.split("|")) == len(files.render(rows).splitlines()[0].split("|"))


@pytest.mark.parametrize("name", list(latency.FILES)[1:3])
def test_latency_is_measured_beside_float32(monkeypatch, name):
    monkeypatch.setattr(latency, "WIDTH", 64)
    row = latency.measure(ours, {"file": name, "batch": 2}, QUICK)
    assert row["milliseconds"] > 0 < row["fp32_milliseconds"]
    assert row["low"] <= row["speed"] <= row["high"]


def rows_of_tasks(ratios, seeds):
    """ratios: recipe -> error / float32's on what is chosen on and on what is shown, times a number for each seed."""
    return [
        {"task": task, **cell._asdict(), "recipe": recipe, "seed": seed, "error": error}
        for seed, times in enumerate(seeds)
        for task in tasks.TASKS
        for (cell, recipe), error in [
            (tasks.FLOAT, 0.5),
            *(
                ((cell, name), 0.5 * times * of[task in tasks.SHOWN])
                for cell in tasks.CELLS
                for name, of in ratios.items()
            ),
        ]
    ]


def test_a_recipe_for_all_rows_is_chosen_on_the_tasks_that_are_not_shown():
    rows = rows_of_tasks({"a": (2.0, 9.0), "b": (3.0, 1.0)}, seeds=(1, 1))
    lines = tasks.render({"ours": rows}).splitlines()
    assert lines[2] == "| INT4 per tensor, for all rows | 9.00 (9.00 to 9.00)<br>a |"
    assert lines[3] == "| INT4 per tensor, best of the row | 1.00 (1.00 to 1.00)<br>b |"


def test_contenders_are_compared_over_the_seeds_that_all_have_whole():
    half_a_seed = rows_of_tasks({"b": (3.0, 3.0)}, seeds=(1, 50))[: -len(tasks.SHORT) - 1]
    rows = {"ours": rows_of_tasks({"a": (2.0, 2.0)}, seeds=(1, 3)), "brevitas": half_a_seed}
    header, _, line, *_ = tasks.render(rows).splitlines()
    assert header == "| weights, recipe | ours, 1 seed | Brevitas, 1 seed | ours, 2 seeds |"
    assert line.startswith("| INT4 per tensor, for all rows | 2.00<br>a | 3.00<br>b | 4.00 (")


def test_what_is_measured_in_short_is_one_seed_of_the_tasks_that_are_shown():
    of_cells = {}
    for job in tasks.jobs(ours, Effort()):
        cell = (job["bits"], job.get("activation_bits"))
        of_cells.setdefault(cell, set()).add((job["task"], job["recipe"], job["seed"]))
    for cell in ((3, None), (1.58, None), (4, 8), (4, 4)):
        found, recipes, seeds = map(set, zip(*of_cells[cell], strict=True))
        assert (found, seeds) == (set(tasks.SHOWN), {0})
        assert recipes == set(ours.SHORTLIST) & set(ours.recipes(cell[0], "per_tensor"))
    assert {seed for _, _, seed in of_cells[4, None]} == {0, 1}


@pytest.mark.parametrize("activation_bits", [4, 8])
def test_activations_are_quantized_where_a_row_names_them(activation_bits):
    job = {"task": "wine", "bits": 4, "granularity": "per_channel", "recipe": "learned", "seed": 0}
    without, with_them = (
        tasks.measure(ours, {**job, **more}, QUICK)["error"] for more in ({}, {"activation_bits": activation_bits})
    )
    assert without != with_them


@pytest.mark.parametrize("recipe", ["float32", "W2A2"])
def test_the_digits_are_learned_with_quantization_and_without(recipe):
    row = digits.measure(ours, {"recipe": recipe, "seed": 0}, QUICK)
    assert 0.3 < row["accuracy"] <= 1


def test_our_recipes_train_on_every_task():
    job = {"bits": 4, "granularity": "per_tensor", "recipe": "learned", "seed": 0}
    for task in tasks.TASKS:
        assert 0 < tasks.measure(ours, {**job, "task": task}, QUICK)["error"] < 100
