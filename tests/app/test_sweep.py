"""A sweep keeps every row once, whatever stops it."""

import json
from dataclasses import replace

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
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        workers = [cluster.add_node(num_cpus=1) for _ in range(2)]
        jobs = jobs_of(["wine"], [2, 3, 4], ["per_channel"], ["minmax", "learned"], [None], 2)

        def run(left):
            for number, row in enumerate(sweep.on_ray(left, cluster.address)):
                if number == 2:
                    cluster.remove_node(workers[0], allow_graceful=False)
                yield row

        path = tmp_path / "rows.jsonl"
        sweep.sweep(jobs, path, run)
        found = [Job.of(row) for row in rows_of(path)]
        assert sorted(found, key=str) == sorted(jobs, key=str)
    finally:
        ray.shutdown()
        cluster.shutdown()
