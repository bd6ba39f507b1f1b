"""Who asks what the page never sends gets a sentence, and nobody else notices."""

import asyncio
import json
import os
import random
import re
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import gradio as gr
import httpx
import pytest

from app import gate
from app.gate import Gate
from app.runs.fair import Asked, address, is_here, on_behalf_of
from app.runs.queue import exclusive
from app.runs.run import is_running
from app.settings import DEFAULTS
from benchmarks.hostile import hostile
from benchmarks.server import Served
from benchmarks.soak import soak

JOIN, DATA = "gradio_api/queue/join", "gradio_api/queue/data"
HOSTILE: list[Any] = [None, [], {}, "", "x" * 5000, -1, 2**70, 1e308, True, [[1, "a"], None], {"__type__": "update"}]


@pytest.fixture
def client(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=60) as client:
        yield client


def question(page: gr.Blocks, name: str, seed: int = 0) -> dict[str, Any]:
    """An event of a page of its own."""
    number = next(number for number, fn in page.fns.items() if fn.api_name == name)
    settings = list({**DEFAULTS, "seed": seed}.values())
    states = [None] * (len(page.fns[number].inputs) - len(settings))
    return {"session_hash": uuid.uuid4().hex, "fn_index": number, "data": [*states, *settings]}


def answers(client: httpx.Client, session: str) -> list[dict[str, Any]]:
    """All that a visitor is told, until the stream is closed."""
    with client.stream("GET", DATA, params={"session_hash": session}) as stream:
        return [json.loads(line[5:]) for line in stream.iter_lines() if line.startswith("data:")]


def is_honest_visitor_served(client: httpx.Client, page: gr.Blocks) -> bool:
    asked = question(page, "fp32_step")
    assert client.post(JOIN, json=asked).status_code == 200
    return answers(client, asked["session_hash"])[-2]["success"]


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"session_hash": ""}, "session_hash=''; expected 1 to 64 letters and digits"),
        ({"session_hash": None}, "session_hash=None; expected"),
        ({"session_hash": 7}, "session_hash=7; expected"),
        ({"session_hash": "a" * 65}, "expected 1 to 64 letters and digits"),
        ({"session_hash": "a/../b"}, "expected 1 to 64 letters and digits"),
        ({"fn_index": 10_000}, "fn_index=10000; expected the number of one of the page's events"),
        ({"fn_index": None}, "fn_index=None; expected"),
        ({"fn_index": True}, "fn_index=True; expected"),
        ({"data": None}, "data=None; expected a list of"),
        ({"data": [1]}, "data=[1]; expected a list of"),
    ],
)
def test_a_wrong_question_gets_a_sentence(
    client: httpx.Client, page: gr.Blocks, wrong: dict[str, Any], sentence: str
) -> None:
    asked = {**question(page, "fp32_step"), **wrong}
    for _ in range(4):  # as many as stopped the queue
        answer = client.post(JOIN, json=asked)
        assert (answer.status_code, sentence in answer.json()["detail"]) == (400, True), answer.text
    assert client.get("healthz").json()["queue"] == "alive"


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"\xff", b'{"data": [NaN]}', b"[" * 100_000, b"7"])
def test_what_is_no_object_gets_a_sentence(client: httpx.Client, body: bytes) -> None:
    answer = client.post(JOIN, content=body)
    assert answer.status_code == 400
    assert "expected a JSON object" in answer.json()["detail"]


def test_what_the_page_never_sends_is_not_taken(client: httpx.Client) -> None:
    assert client.post("gradio_api/upload", files={"files": ("x.csv", b"1")}).status_code == 404
    assert client.post("gradio_api/component_server", json={}).status_code == 404
    answer = client.post(JOIN, content=b" " * (gate.MOST_BYTES_ASKED + 1))
    assert (answer.status_code, "expected at most 3,000,000 bytes" in answer.json()["detail"]) == (413, True)


def test_what_the_browser_does_alone_is_asked_of_nobody(client: httpx.Client, page: gr.Blocks) -> None:
    alone = [number for number, event in page.fns.items() if event.fn is None]
    assert alone
    for number in alone:
        data = ["a/../b"] * len(page.fns[number].inputs)
        answer = client.post(JOIN, json={"session_hash": "visitor", "fn_index": number, "data": data})
        assert (answer.status_code, f"fn_index={number}; expected" in answer.json()["detail"]) == (400, True)


def test_nobody_skips_the_queue(client: httpx.Client, page: gr.Blocks) -> None:
    assert client.post("gradio_api/run/fp32_step", json=question(page, "fp32_step")).status_code == 404


def test_one_page_has_so_many_events_under_way(client: httpx.Client, page: gr.Blocks) -> None:
    asked = question(page, "fp32_step", seed=77)
    with exclusive():  # nothing gets on meanwhile
        statuses = [client.post(JOIN, json=asked).status_code for _ in range(gate.MOST_OF_A_SESSION)]
        refused = client.post(JOIN, json=asked)
    assert statuses == [200] * gate.MOST_OF_A_SESSION
    assert (refused.status_code, "come back in 60 seconds" in refused.json()["error"]) == (429, True)
    answers(client, asked["session_hash"])


def test_an_address_has_so_many_events_under_way(
    client: httpx.Client, page: gr.Blocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "MOST_OF_AN_ADDRESS", 5)
    asked = [question(page, "fp32_step", seed) for seed in range(7)]
    with exclusive():
        answers_of_one = [client.post(JOIN, json=one) for one in asked[:6]]
        other = client.post(JOIN, json=asked[6], headers={"X-Forwarded-For": "1.2.3.4"})
    assert [answer.status_code for answer in answers_of_one] == [200] * 5 + [429]
    assert "come back in 60 seconds" in answers_of_one[-1].json()["error"]
    assert other.status_code == 200
    for one in (*asked[:5], asked[6]):
        answers(client, one["session_hash"])


def test_runs_that_nobody_reads_end_and_hold_nobody_up(
    client: httpx.Client, page: gr.Blocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "SECONDS_TO_READ", 1.0)
    asked = [question(page, "fp32_run", seed) for seed in range(40)]
    assert {client.post(JOIN, json=one).status_code for one in asked} == {200}
    assert is_honest_visitor_served(client, page)

    def left() -> list[str]:
        sessions = [one["session_hash"] for one in asked]
        return [one for one in sessions if is_running(one) or one in page._queue.pending_event_ids_session]

    deadline = time.monotonic() + 60
    while left() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left() == []


def test_a_pause_ends_the_run_asked_for_before_it_and_none_after_it(
    client: httpx.Client, page: gr.Blocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page._queue, "sleep_when_free", 0.5)  # so long a run waits before it begins
    time.sleep(0.1)
    run = question(page, "fp32_run", seed=76)
    number = next(number for number, event in page.fns.items() if event.fn and event.fn.__name__ == "pause")
    pause = {**run, "fn_index": number, "data": []}

    def post(path: str, asked: dict[str, Any]) -> None:
        assert client.post(path, json=asked).status_code == 200

    def last_step(enough: int = 2000) -> int:
        """That is shown; a pause comes as soon as there are enough."""
        step = 0
        with client.stream("GET", DATA, params={"session_hash": run["session_hash"]}) as stream:
            for line in stream.iter_lines():
                if (shown := re.search(r'\\"step\\": ?(\d+)', line)) and step < enough <= int(shown[1]):
                    post("gradio_api/run/predict", pause)
                step = max(step, int(shown[1]) if shown else 0)
        return step

    post(JOIN, run)
    post("gradio_api/run/predict", pause)
    assert last_step() < 2000
    post("gradio_api/run/predict", pause)
    post(JOIN, run)
    assert last_step(enough=20) >= 20


def test_whoever_asks_again_has_as_long_to_read_as_at_first(
    client: httpx.Client, page: gr.Blocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "SECONDS_TO_READ", 1.0)
    asked = question(page, "fp32_step", seed=55)
    for _ in range(2):
        assert client.post(JOIN, json=asked).status_code == 200
        time.sleep(0.7)
    assert answers(client, asked["session_hash"])[-2]["success"]


def test_every_event_is_computed_in_the_name_of_who_asks(
    client: httpx.Client, page: gr.Blocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = []
    monkeypatch.setattr("app.runs.queue.address", lambda: named.append(address()) or named[-1])  # type: ignore[func-returns-value]
    for name in ("fp32_run", "fp32_step"):
        asked = question(page, name, seed=77)
        header = {"x-forwarded-for": "203.0.113.7"}
        assert client.post(JOIN, json=asked, headers=header).status_code == 200
        answers(client, asked["session_hash"])
    assert named
    assert set(named) == {"203.0.113.7"}


def test_a_reader_who_goes_is_missed(client: httpx.Client, page: gr.Blocks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "SECONDS_TO_READ", 1.5)
    asked = question(page, "fp32_step", seed=78)
    with exclusive():
        assert client.post(JOIN, json=asked).status_code == 200
        with client.stream("GET", DATA, params={"session_hash": asked["session_hash"]}) as stream:
            lines = stream.iter_lines()  # kept, since the stream ends with it
            next(lines)
            time.sleep(1.8)
            with on_behalf_of(Asked(asked["session_hash"])):
                assert is_here(), "it reads"
        deadline = time.monotonic() + 20
        with on_behalf_of(Asked(asked["session_hash"])):
            while is_here() and time.monotonic() < deadline:
                time.sleep(0.05)
            assert not is_here()
    assert is_honest_visitor_served(client, page)


def test_whatever_is_sent_nothing_breaks(
    client: httpx.Client, page: gr.Blocks, capfd: pytest.CaptureFixture[str]
) -> None:
    draw = random.Random(0)
    queued = [number for number, fn in page.fns.items() if fn.queue and fn.fn is not None]

    def ask(number: int) -> None:
        session = uuid.uuid4().hex
        data = [draw.choice(HOSTILE) for _ in page.fns[number].inputs]
        asked = {"session_hash": session, "fn_index": number, "data": data, "event_data": draw.choice([None, {"a": 1}])}
        assert client.post(JOIN, json=asked).status_code == 200
        answers(client, session)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(ask, queued * 3))
    assert is_honest_visitor_served(client, page)
    assert "Traceback" not in "".join(capfd.readouterr())


def test_a_proxy_in_our_own_network_says_who_asks() -> None:
    def address(host: str, forwarded: str) -> str:
        headers = [(b"x-forwarded-for", forwarded.encode())] if forwarded else []
        return gate._address(gate.Request({"type": "http", "client": (host, 1), "headers": headers}))

    assert address("8.8.8.8", "1.2.3.4") == "8.8.8.8"
    assert address("10.0.0.1", "9.9.9.9, 1.2.3.4") == "1.2.3.4"
    assert address("127.0.0.1", "") == "127.0.0.1"


def test_a_host_learns_that_the_queue_has_stopped() -> None:
    stopped: Any = SimpleNamespace(_queue=SimpleNamespace(stopped=True))
    assert Gate(stopped, stopped)._health().status_code == 503


def test_whatever_is_posted_gets_no_fault_and_stops_nobody(
    client: httpx.Client, page: gr.Blocks, capfd: pytest.CaptureFixture[str]
) -> None:
    """Part of what `benchmarks.load --hostile` does."""
    events = {number: len(event.inputs) for number, event in page.fns.items()}
    for asked in hostile(random.Random(0), events, 120):
        answer = client.post(**asked)
        assert answer.status_code < 500, (asked, answer.text)
    assert client.get("healthz").status_code == 200
    assert is_honest_visitor_served(client, page)
    assert "Traceback" not in "".join(capfd.readouterr())


def test_visitors_who_click_on_anything_meet_no_fault(url: str) -> None:
    """Part of what `benchmarks.soak` does."""
    with ThreadPoolExecutor(1) as apart:  # from the event loop that a browser of this process may have
        found, memory = apart.submit(asyncio.run, soak(Served(url, os.getpid()), visitors=3, minutes=0.05)).result()
    assert [what for what in found if what.startswith("fault")] == []
    assert found["answered"] + found["left before the end"] >= 3
    assert len(memory) == 2
