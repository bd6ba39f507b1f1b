"""Whoever asks is looked at before Gradio hears of it: what our page never sends is refused in a sentence.

Gradio takes callers at their word, and a few wrong ones stop its queue for everybody; docs/upstream.md has each case.
"""

import asyncio
import ipaddress
import json
import re
import time
import uuid
from collections import Counter
from typing import Any, NoReturn

import gradio as gr
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.lab.points import MOST_BYTES
from app.runs.fair import address_of, know
from app.runs.run import leave

API = "/gradio_api/"
SESSION = re.compile(r"[A-Za-z0-9_-]{1,64}")
MOST_BYTES_ASKED = 3 * MOST_BYTES  # a file of points comes as base64
MOST_OF_A_SESSION = 24  # events that wait or run; every click is one
MOST_OF_AN_ADDRESS = 90  # a class may share one
COME_BACK = 60  # seconds, in which most runs end
SECONDS_TO_READ = 10.0  # after which answers are not for anybody

SERVER = uuid.uuid4().hex  # tells a page whether it is still the one that it came from

OK, BAD, GONE, TOO_LARGE, TOO_MANY, DEAD = 200, 400, 404, 413, 429, 503


class Refused(Exception):
    """A sentence for who asked, and the status that goes with it."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        headers = {"Retry-After": str(COME_BACK)} if status == TOO_MANY else {}
        self.answer = JSONResponse({"detail": sentence, "error": sentence}, status, headers)


class Gate:
    """ASGI middleware before a Gradio page.

    Args:
        app: what answers those who pass.
        page: whose events may be asked for.
    """

    def __init__(self, app: ASGIApp, page: gr.Blocks) -> None:
        self.app, self.page = app, page
        self._readers: Counter[str] = Counter()
        self._watched: dict[str, asyncio.Task[None]] = {}
        self._joined: dict[str, float] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        request = Request(scope, receive)
        route = request.url.path.partition(API)[2].strip("/")
        try:
            if request.url.path.endswith("/healthz"):
                return await self._health()(scope, receive, send)
            if route == "queue/data":
                return await self._answer_reader(request, send)
            if request.method == "POST":
                request.state.asked_at = time.monotonic()
                receive = await self._checked(request, route)
        except Refused as refused:
            return await refused.answer(scope, receive, send)
        except ClientDisconnect:
            return None
        await self.app(scope, receive, send)

    def _health(self) -> JSONResponse:
        """For a host that asks whether to start the page anew."""
        alive = is_alive(self.page)
        return JSONResponse({"queue": "alive" if alive else "stopped", "server": SERVER}, OK if alive else DEAD)

    async def _answer_reader(self, request: Request, send: Send) -> None:
        session = request.query_params.get("session_hash", "")
        self._readers[session] += 1
        try:
            await self.app(request.scope, request.receive, send)
        finally:
            self._readers[session] -= 1
            self._readers += Counter()  # those that are left
            if address_of(session):
                self._watch(session)

    async def _checked(self, request: Request, route: str) -> Receive:
        """The request to hand on, its body read already.

        Raises:
            Refused: it is none that the page sends.
        """
        kind = route.partition("/")[0]
        if kind not in ("queue", "run", "cancel", "reset"):
            raise Refused(GONE, f"nothing is posted to {request.url.path!r:.80} here")
        body = await _body(request)
        question = _parsed(body)
        if kind in ("queue", "run"):
            session = self._check_event(question)
            if kind == "queue":
                self._admit(session, _address(request))
        return _replayed(body, request.receive)

    def _check_event(self, question: dict[str, Any]) -> str:
        session, number, data = (question.get(name) for name in ("session_hash", "fn_index", "data"))
        if not (isinstance(session, str) and SESSION.fullmatch(session)):
            raise Refused(BAD, f"session_hash={session!r:.80}; expected 1 to 64 letters and digits")
        event = self.page.fns.get(number) if type(number) is int else None
        if event is None or event.fn is None:  # what is done in the browser alone is asked of nobody
            raise Refused(BAD, f"fn_index={number!r:.80}; expected the number of one of the page's events")
        if not isinstance(data, list) or len(data) != len(event.inputs):
            raise Refused(BAD, f"data={data!r:.80}; expected a list of {len(event.inputs)} values")
        return session

    def _admit(self, session: str, address: str) -> None:
        """Note who it is, unless they have enough under way."""
        queue = self.page._queue
        if queue.max_size is not None and (line := len(queue)) >= queue.max_size:
            raise Refused(TOO_MANY, f"{line} visitors wait in line before you; come back in {COME_BACK} seconds")
        waiting = Counter(event.session_hash for event in self.page._queue.event_ids_to_events.values())
        if (mine := waiting[session]) >= MOST_OF_A_SESSION:
            raise Refused(
                TOO_MANY,
                f"{mine} clicks of this page are not answered yet; come back in {COME_BACK} seconds",
            )
        ours = sum(count for other, count in waiting.items() if address_of(other) == address)
        if ours >= MOST_OF_AN_ADDRESS:
            raise Refused(TOO_MANY, f"{ours} events of this address are under way; come back in {COME_BACK} seconds")
        know(session, address)
        self._watch(session)

    def _watch(self, session: str) -> None:
        """From now on, it has a while to read what it has asked for."""
        self._joined[session] = time.monotonic()
        if session not in self._watched:
            watch = asyncio.create_task(self._end_unread(session))
            watch.add_done_callback(lambda _: (self._watched.pop(session), self._joined.pop(session)))
            self._watched[session] = watch

    async def _end_unread(self, session: str) -> None:
        """What nobody reads ends, and is forgotten; whoever has just asked has the time to begin."""
        while (seconds := self._joined[session] + SECONDS_TO_READ - time.monotonic()) > 0:
            await asyncio.sleep(seconds)
        if not self._readers[session]:
            leave(session)
            queue = self.page._queue
            await queue.clean_events(session_hash=session)
            queue.pending_event_ids_session.pop(session, None)
            queue.pending_messages_per_session.pop(session, None)


def is_alive(page: gr.Blocks) -> bool:
    """Is there a queue that takes events?"""
    return not page._queue.stopped


async def _body(request: Request) -> bytes:
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MOST_BYTES_ASKED:
            raise Refused(TOO_LARGE, f"the body is too large; expected at most {MOST_BYTES_ASKED:,} bytes")
    return body


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        question = json.loads(body, parse_constant=_no_number)
    except (ValueError, RecursionError):
        question = None
    if not isinstance(question, dict):
        raise Refused(BAD, f"the body is {body[:60]!r}; expected a JSON object")
    return question


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number in JSON")


def _replayed(body: bytes, receive: Receive) -> Receive:
    """What was read is read again."""
    parts: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return parts.pop() if parts else await receive()

    return again


def _address(request: Request) -> str:
    """Where the request comes from: as a proxy in our own network says, or else who is connected."""
    host = request.client.host if request.client else ""
    *_, forwarded = request.headers.get("x-forwarded-for", "").split(",")
    try:
        is_proxy = ipaddress.ip_address(host).is_private
    except ValueError:
        is_proxy = False
    return forwarded.strip() or host if is_proxy else host
