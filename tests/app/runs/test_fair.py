"""Turns are shared among addresses, and nobody computes for who has left."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest

from app.runs.fair import Asked, know, on_behalf_of
from app.runs.queue import NobodyWaits, exclusive, in_line
from app.runs.run import leave


def test_a_newcomer_waits_for_one_turn_of_an_address_not_for_all_its_runs() -> None:
    order: list[str] = []

    def work(session: str) -> None:
        with on_behalf_of(Asked(session)), exclusive():
            order.append(session)
            time.sleep(0.02)

    for number in range(20):
        know(f"crowd {number}", "their address")
    know("newcomer", "another")
    with ThreadPoolExecutor(21) as pool:
        with exclusive():
            crowd = [pool.submit(work, f"crowd {number}") for number in range(20)]
            while in_line() < 2:
                time.sleep(0.01)
            newcomer = pool.submit(work, "newcomer")
            time.sleep(0.1)
        for one in (*crowd, newcomer):
            one.result()
    assert order.index("newcomer") <= 2


@pytest.mark.parametrize("others", [0, 1])
def test_an_address_with_many_runs_rests_after_each_turn_while_others_have_theirs(others: int) -> None:
    turns: list[tuple[float, float]] = []
    ended = threading.Event()

    def work(number: int) -> None:
        with on_behalf_of(Asked(f"many {number}")), exclusive():
            begun = time.monotonic()
            time.sleep(0.02)
            turns.append((begun, time.monotonic()))

    def steadily() -> None:
        while not ended.is_set():
            with on_behalf_of(Asked("single")), exclusive():
                time.sleep(0.005)
            time.sleep(0.005)

    for number in range(12):
        know(f"many {number}", "where many are")
    know("single", "elsewhere")
    with ThreadPoolExecutor(13) as pool:
        single = [pool.submit(steadily) for _ in range(others)]
        for one in [pool.submit(work, number) for number in range(12)]:
            one.result()
        ended.set()
        for one in single:
            one.result()
    rests = [after[0] - before[1] for before, after in pairwise(turns)]
    rest = min(rests[8:10])  # of the eight turns before, none was of another test, and two more wait
    assert rest >= 0.04 if others else rest < 0.02  # twice as long as a turn


def test_whoever_has_left_keeps_nobody_waiting() -> None:
    def work() -> None:
        with on_behalf_of(Asked("leaver")), exclusive():
            raise AssertionError("computed for nobody")

    know("leaver", "somewhere")
    with ThreadPoolExecutor(1) as pool:
        with exclusive():
            waiting = pool.submit(work)
            while in_line() < 2:
                time.sleep(0.01)
            leave("leaver")
            with pytest.raises(NobodyWaits):
                waiting.result(5)
        know("leaver", "somewhere")  # back again
        with on_behalf_of(Asked("leaver")), exclusive() as mine:
            assert mine
