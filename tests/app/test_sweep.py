"""A sweep keeps every row once, whatever stops it."""

import json
import os
import signal
from dataclasses import asdict, replace

import pytest

from app.lab import suite, sweep
from app.lab.ratios import ratio
from app.lab.sweep import Job, jobs_of, main

COMMAND = ["--tasks", "wine,spirals", "--bits", "2,4", "--scale", "learned", "--seeds", "2"]


@pytest.fixture
def out(tmp_path, monkeypatch):
    for name in ("wine", "spirals"):
        monkeypatch.setitem(suite.SUITE, name, replace(suite.SUITE[name], steps=2, trained=0))
    return tmp_path / "rows.jsonl"


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_sweep_measures_every_combination_and_float32_once(out, capsys):
    assert main([*COMMAND, "--out", str(out)]) == 0
    rows = rows_of(out)
    expected = jobs_of(["wine", "spirals"], [2, 4], ["per_channel"], ["learned"], [None], 2)
    assert sorted(map(Job.of, rows), key=str) == sorted(expected, key=str)
    assert len(expected) == 12
    assert all(row["error"] > 0 for row in rows)
    assert out.with_suffix(".png").stat().st_size > 1000
    assert "W2 per_channel learned" in capsys.readouterr().out


def test_a_stopped_sweep_goes_on_and_says_how(out, capsys, monkeypatch):
    real, calls = sweep.measure, []

    def stops_at_the_third(job):
        calls.append(job)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(job)

    monkeypatch.setattr(sweep, "measure", stops_at_the_third)
    assert main([*COMMAND, "--out", str(out)]) == 130
    assert f"stopped: 2 of 12 rows are in {out}; the same command goes on" in capsys.readouterr().err
    first = rows_of(out)
    out.write_text(out.read_text() + '{"task": "wine", "se')  # as after a power cut
    assert main([*COMMAND, "--out", str(out)]) == 0
    rows = rows_of(out)
    assert rows[:2] == first
    assert len({Job.of(row) for row in rows}) == len(rows) == 12
    assert len(calls) == 3 + 10


def test_a_file_of_something_else_is_refused(out, capsys):
    out.write_text('{"a": 1}\n')
    assert main([*COMMAND, "--out", str(out)]) == 2
    assert f"line 1 of {out} is" in capsys.readouterr().err


def test_the_geometric_mean_of_ratios():
    errors = {"a": [2.0, 2.0], "b": [1.0, 3.0]}
    found = ratio(errors, {"a": [1.0, 1.0], "b": [4.0, 4.0]})
    assert found.mean == pytest.approx((2 * 0.5) ** 0.5)
    assert found.low == pytest.approx((2 * 0.25) ** 0.5)
    assert found.high == pytest.approx((2 * 0.75) ** 0.5)


def test_the_two_halves_share_no_task():
    assert set(suite.CHOOSING) | set(suite.REPORTING) == set(suite.SUITE)
    assert len(suite.SUITE) >= 12
    assert not set(suite.CHOOSING) & set(suite.REPORTING)


def test_a_worker_that_dies_costs_no_row_and_doubles_none(tmp_path, monkeypatch):
    ray = pytest.importorskip("ray")
    died, jobs = tmp_path / "died", jobs_of(["wine"], [2, 3], ["per_channel"], ["minmax"], [None], 4)

    def dies_once(job):
        if job == jobs[5] and not died.exists():
            died.write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)
        return {**asdict(job), "error": 1.0, "bytes": 1, "worker": os.getpid()}

    monkeypatch.setattr(sweep, "measure", dies_once)
    path = tmp_path / "rows.jsonl"
    try:
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
        sweep.sweep(jobs, path, lambda left: sweep.on_ray(left, None))
    finally:
        ray.shutdown()
    assert sorted((Job.of(row) for row in rows_of(path)), key=str) == sorted(jobs, key=str)
    assert next(row for row in rows_of(path) if Job.of(row) == jobs[5])["worker"] != int(died.read_text())
