"""A flood is refused before anything is read, says when to come again, and leaves the other work alone."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from perennial.api import body
from perennial.api.app import create_app
from perennial.api.guard import Guard
from perennial.api.services import Limits
from tests.unit.api.conftest import Plane, plane_of

HEADERS = [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")]


def scope(path: str = "/v1/examples", method: str = "POST") -> dict[str, Any]:
    return {"type": "http", "method": method, "path": path, "headers": HEADERS, "query_string": b""}


async def taken(_scope: Any, receive: Any, send: Any) -> None:
    """An app that answers 200 to whatever comes through."""
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def ask(guard: Guard, receive: Any, **changes: Any) -> tuple[int, dict[bytes, bytes]]:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    await guard(scope(**changes), receive, send)
    return sent[0]["status"], dict(sent[0]["headers"])


async def unread() -> Any:
    raise AssertionError("the body of a refused request was read")


async def empty() -> Any:
    return {"type": "http.request", "body": b"{}", "more_body": False}


@pytest.mark.req("J111", "D11")
def test_a_full_line_refuses_before_the_body_is_read() -> None:
    shed: list[str] = []
    guard = Guard(taken, token=None, max_body=100, full=lambda path: path == "/v1/examples", shed=shed.append)
    status, headers = asyncio.run(ask(guard, unread))
    assert (status, headers[b"retry-after"]) == (429, b"1")
    assert shed == ["/v1/examples"]
    assert asyncio.run(ask(guard, empty, path="/v1/predict"))[0] == 200  # another line
    assert asyncio.run(ask(guard, empty, method="GET"))[0] == 200  # a look has no line


@pytest.mark.req("J111")
def test_bodies_that_come_in_at_one_time_are_bounded_and_slow_ones_end() -> None:
    async def play() -> tuple[list[int], int]:
        guard = Guard(taken, token=None, max_body=100, reading=3)
        guard._body_seconds = 0.2
        never = asyncio.Event()
        slow = [asyncio.ensure_future(ask(guard, never.wait)) for _ in range(3)]
        await asyncio.sleep(0.05)
        full, headers = await ask(guard, unread)
        assert (full, headers[b"retry-after"]) == (429, b"1")
        ended = [status for status, _ in await asyncio.gather(*slow)]
        return ended, (await ask(guard, empty))[0]

    assert asyncio.run(play()) == ([408, 408, 408], 200)


@pytest.mark.req("J111", "D11")
def test_a_flood_of_examples_gets_429_and_never_stops_a_rollback_or_an_answer(tmp_path: Path) -> None:
    made = plane_of(tmp_path, limits=Limits(store_threads=1, waiting=0))
    with made.client:
        _flood(made)
    made.world.close()


def _flood(made: Plane) -> None:
    held, let_go = threading.Event(), threading.Event()
    add_many = made.buffer.add_many

    def slow(*args: Any, **named: Any) -> Any:
        held.set()
        assert let_go.wait(20)
        return add_many(*args, **named)

    made.buffer.add_many = slow  # type: ignore[method-assign]
    example = {"agent": "scout", "task": "topic", "text": "Goal!", "label": "sports"}
    answers: list[Any] = []
    sender = threading.Thread(target=lambda: answers.append(made.post("/v1/examples", example)))
    sender.start()
    try:
        assert held.wait(20)
        refused = made.post("/v1/examples", example)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        # it is heard, and answered with what is true: there is no version to go back to
        assert made.post("/v1/rollback", {"agent": "scout", "reason": "bad answers"}).status_code == 409
        assert made.client.get("/v1/agents").status_code == made.client.get("/healthz").status_code == 200
        assert 'route="/v1/examples",status="429"' in made.client.get("/metrics").text
    finally:
        let_go.set()
        sender.join()
    assert [answer.status_code for answer in answers] == [200]


@pytest.mark.req("J111", "D11")
def test_large_predictions_that_wait_to_be_read_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their agent is known only when they are read, so they cannot stand in its line yet."""
    let_go, parse = threading.Event(), body.parse

    def slow(raw: bytes) -> Any:
        assert let_go.wait(20)
        return parse(raw)

    monkeypatch.setattr(body, "parse", slow)
    made = plane_of(tmp_path, limits=Limits(reading=3))
    made.world.champion("1.0.0")
    app = create_app(made.services)
    large = b'{"agent":"scout","task":"topic","inputs":["a"],"more":"' + b"x" * 70_000 + b'"}'
    answered: list[int] = []

    async def one() -> None:
        async def receive() -> Any:
            return {"type": "http.request", "body": large, "more_body": False}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                answered.append(message["status"])

        await app(scope("/v1/predict"), receive, send)

    async def flood() -> list[int]:
        asked = [asyncio.ensure_future(one()) for _ in range(20)]
        await asyncio.sleep(0.2)
        early = list(answered)
        let_go.set()
        await asyncio.gather(*asked)
        return early

    try:
        early = asyncio.run(flood())
    finally:
        made.world.close()
    assert early == [429] * 15  # two are read, three wait
    assert answered[15:] == [200] * 5
