"""Who may ask: everyone on this machine, or whoever shows the token; a web page in the browser never."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.websockets import WebSocketDisconnect

from perennial.api.data_plane import listening_socket
from perennial.api.guard import check_exposure
from perennial.api.services import Limits
from perennial.errors import NotConfigured, PortTaken
from tests.unit.api.conftest import Plane, plane_of

TOKEN = "t" * 32
PATHS = [
    "/v1/agents",
    "/metrics",
    "/nope",
    "/docs",
    "/openapi.json",
    "/v1/predict",
    "/v1/faults",
    "/v1/rollback",
    "//",
    "/v1/../v1/agents",
]


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[Plane]:
    made = plane_of(tmp_path, limits=Limits(token=TOKEN, max_body=1000))
    with made.client:
        yield made
    made.world.close()


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "header", [None, "Bearer", "Bearer wrong", f"Bearer {TOKEN}x", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN} x"]
)
def test_without_the_token_nothing_answers_but_health(closed: Plane, path: str, header: str | None) -> None:
    headers = {"authorization": header} if header else {}
    for method in ("GET", "POST", "DELETE", "OPTIONS"):
        assert closed.client.request(method, path, headers=headers).status_code == 401
    assert closed.client.get("/healthz").status_code == 200


def test_with_the_token_it_answers_from_any_host(closed: Plane) -> None:
    headers = {"authorization": f"Bearer {TOKEN}", "host": "models.example.org"}
    assert closed.client.get("/v1/agents", headers=headers).status_code == 200
    assert closed.client.get("/nope", headers=headers).status_code == 404
    assert closed.client.delete("/v1/agents", headers=headers).status_code == 405


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8600", "127.0.0.1.evil.example", "", "[2001:db8::1]:80"]
)
def test_a_page_that_renames_its_host_to_loopback_is_refused(plane: Plane, host: str) -> None:
    assert plane.client.get("/v1/agents", headers={"host": host}).status_code == 403


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:8600", "localhost:8600", "[::1]:8600"])
def test_loopback_needs_no_token(plane: Plane, host: str) -> None:
    assert plane.client.get("/v1/agents", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "kind", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"]
)
def test_a_body_that_any_web_page_may_send_is_refused(plane: Plane, kind: str | None) -> None:
    headers = {"content-type": kind} if kind else {}
    assert plane.client.post("/v1/examples", content=b"{}", headers=headers).status_code == 415


@pytest.mark.parametrize("declared", [True, False])
def test_a_large_body_is_cut_off_as_it_comes(closed: Plane, declared: bool) -> None:
    headers = {"authorization": f"Bearer {TOKEN}", "content-type": "application/json"}
    given = 0

    def parts() -> Iterator[bytes]:
        nonlocal given
        for _ in range(1000):
            given += 100
            yield b"x" * 100

    content = b"x" * 100_000 if declared else parts()
    assert closed.client.post("/v1/examples", content=content, headers=headers).status_code == 413


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "models.example.org"])
def test_an_open_address_without_a_token_does_not_start(host: str) -> None:
    with pytest.raises(NotConfigured, match="PERENNIAL_DATA_PLANE_TOKEN"):
        check_exposure(host, None)
    with pytest.raises(NotConfigured, match="16 characters"):
        check_exposure(host, "short")
    check_exposure(host, TOKEN)
    for loopback in ("127.0.0.1", "::1", "localhost"):
        check_exposure(loopback, None)


def test_a_taken_port_is_named() -> None:
    first = listening_socket("127.0.0.1", 0)
    first.listen()
    with pytest.raises(PortTaken, match="PERENNIAL_DATA_PLANE_PORT"):
        listening_socket("127.0.0.1", first.getsockname()[1])
    first.close()


def test_websockets_are_closed(plane: Plane) -> None:
    with pytest.raises(WebSocketDisconnect) as caught, plane.client.websocket_connect("/v1/predict"):
        raise AssertionError("it was let in")
    assert caught.value.code == 1008
