"""The same settings give the same numbers, bit for bit, wherever they are computed."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from app.lab.estimators import Estimators, slice_along
from app.lab.fit import Experiment
from app.lab.solo import Solo
from app.lab.threads import THREADS, fix_threads
from app.lab.trace import trace_step
from app.runs.queue import exclusive
from tests.app import everywhere

ROOT = Path(__file__).parents[2]
EXPERIMENT, SOLO, ESTIMATORS = Experiment(everywhere.SETTINGS, "cpu"), Solo(everywhere.SETTINGS), Estimators()


def test_any_thread_the_page_and_the_terminal_find_the_same_numbers_whatever_omp_num_threads() -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", everywhere.__name__],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": number},
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in ("1", "4")
    ]
    metrics, weights = everywhere.experiment()
    answers = [json.loads(process.communicate(timeout=100)[0]) for process in processes]
    assert answers == [{"threads": [metrics, weights], "page": [metrics, weights], "terminal": [metrics]}] * 2


def in_turn() -> None:
    with exclusive():
        pass


@pytest.mark.parametrize(
    "compute",
    [
        lambda: Experiment(everywhere.SETTINGS, "cpu"),
        lambda: next(EXPERIMENT.run(every=1)),
        EXPERIMENT.record,
        lambda: trace_step(EXPERIMENT, "2"),
        lambda: Solo(everywhere.SETTINGS),
        lambda: next(SOLO.run(every=1)),
        SOLO.measure,
        Estimators,
        lambda: next(ESTIMATORS.run(every=1)),
        ESTIMATORS.record,
        lambda: slice_along(ESTIMATORS),
        in_turn,
    ],
)
def test_whoever_computes_fixes_the_number_of_threads(compute: Callable[[], object]) -> None:
    torch.set_num_threads(THREADS + 2)
    try:
        compute()
        assert torch.get_num_threads() == THREADS
    finally:
        fix_threads()
