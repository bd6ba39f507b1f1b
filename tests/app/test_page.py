"""The page without a browser: its handlers, its state, its command line."""

import json
import os
import signal
import socket
import subprocess
import sys
import tracemalloc
from pathlib import Path

import gradio as gr
import httpx
import pytest
from gradio.state_holder import SessionState
from gradio_client import Client

from app import ui
from app.components.module import STATIC
from tests.app.conftest import free_port

ROOT = Path(__file__).resolve().parents[2]
DEFAULTS = (4, "per_tensor", 0.1, 0)  # bits, granularity, noise, seed: as on the page


# --- visitors ---------------------------------------------------------------------------------


def test_two_visitors_do_not_share_their_progress(url: str) -> None:
    one, other = Client(url, verbose=False), Client(url, verbose=False)
    steps = [step_of(client) for client in (one, one, other, one)]
    assert steps == [1, 2, 1, 3]


def step_of(client: Client) -> int:
    shown = client.predict(*DEFAULTS, api_name="/fp32_step")
    return int(json.loads(shown)["step"])


def test_what_gradio_keeps_of_a_session(page: gr.Blocks) -> None:
    """Where it is next to nothing, there may be more sessions."""
    SessionState(page)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        session = SessionState(page)
        now, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(session.config_values) == len(page.blocks)
    assert 100_000 < now - before < 500_000


def test_no_event_has_two_handlers_that_wait_for_the_last(page: gr.Blocks) -> None:
    """They would call each other forever: see docs/upstream.md."""
    handlers = [d for d in page.config["dependencies"] if d["trigger_mode"] == "always_last" and d["backend_fn"]]
    events = [tuple(target) for handler in handlers for target in handler["targets"] if target[0] is not None]
    assert events
    assert len(events) == len(set(events))


def test_a_busy_machine_starts_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradio asks the page for itself at the start, and has no patience."""
    monkeypatch.setattr("gradio.networking.url_ok", lambda _: False)
    with gr.Blocks(analytics_enabled=False) as small:
        gr.HTML("here")
    port = free_port()
    ui.launch(small, "127.0.0.1", port)
    try:
        assert httpx.get(f"http://127.0.0.1:{port}/", timeout=60).is_success
    finally:
        small.close(verbose=False)


def test_no_tab_holds_a_connection_while_nothing_runs(url: str) -> None:
    """A browser has six for a host, and the heartbeat of Gradio would take one for each tab."""
    assert httpx.get(f"{url}config").json()["connect_heartbeat"] is False


# --- what is served -------------------------------------------------------------------------------


def test_scripts_are_served_and_nothing_else_of_the_repository(url: str) -> None:
    files = [path for path in (ROOT / "app").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    with httpx.Client() as client:
        answers = {path: client.get(f"{url}gradio_api/file={path.as_posix()}").status_code for path in files}
    served = {path for path, status in answers.items() if status == 200}
    assert served == {path for path in answers if path.suffix == ".js" or STATIC in path.parents}
    assert set(answers.values()) == {200, 403}


# --- the command line -----------------------------------------------------------------------------


def app(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GRADIO_SERVER_")}
    return subprocess.run(
        [sys.executable, "-m", "app", *arguments],
        cwd=ROOT,
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("port", ["abc", "0", "65536", "-1", "80.5", ""])
def test_a_wrong_port_gets_one_sentence(port: str) -> None:
    for answer in (app(f"--port={port}"), app(GRADIO_SERVER_PORT=port)):
        assert answer.returncode == 2
        assert answer.stderr.count("\n") == 1
        assert f"port={port!r}; expected a whole number from 1 to 65535" in answer.stderr


def test_a_busy_port_gets_one_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        answer = app("--port", str(port))
    assert answer.returncode == 2
    assert answer.stderr.count("\n") == 1
    assert f"cannot listen on 127.0.0.1, port {port}" in answer.stderr


def test_a_page_that_trains_ends_at_once_and_quietly() -> None:
    """At Ctrl+C; the server of the browser's tests ends so at SIGTERM."""
    command = [sys.executable, "-m", "tests.app.train_and_serve", str(free_port())]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            assert "Ctrl+C ends it" in process.stdout.readline()
            process.send_signal(signal.SIGINT)
            _, complaints = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, complaints) == (0, "")


def test_help_names_the_flags() -> None:
    answer = app("--help")
    assert answer.returncode == 0
    assert "--host" in answer.stdout
    assert "--port" in answer.stdout
