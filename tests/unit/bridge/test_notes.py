"""Run notes against a small server that behaves like Airflow's API."""

from __future__ import annotations

import json
import logging
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import SecretStr

from perennial.bridge import nightly, notes
from perennial.settings import Settings


class Api(BaseHTTPRequestHandler):
    """Gives tokens and takes notes; refuses the tokens in ``refused``."""

    seen: list[tuple[str, str, Any, str | None]] = []
    refused: set[str] = set()
    issued = 0

    def do_POST(self) -> None:
        self._answer(201, {"access_token": f"t{Api.issued}"})
        Api.issued += 1

    def do_PATCH(self) -> None:
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        self._answer(401 if token in Api.refused else 200, {})

    def do_GET(self) -> None:
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        known = not self.path.endswith("/train_new")
        self._answer(
            401 if token in Api.refused else 200 if known else 404, {"is_paused": self.path.endswith("/train_desk")}
        )

    def _answer(self, status: int, body: Any) -> None:
        sent = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"null")
        Api.seen.append((self.command, self.path, sent, self.headers.get("Authorization")))
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *args: Any) -> None:
        """Quiet."""


@pytest.fixture
def settings() -> Iterator[Settings]:
    Api.seen, Api.refused, Api.issued = [], set(), 0
    notes._links.clear()
    server = HTTPServer(("127.0.0.1", 0), Api)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield Settings(airflow_url=f"http://127.0.0.1:{server.server_port}/", airflow_user="machine", airflow_password="pw")
    server.shutdown()


@pytest.mark.req("D11")
def test_a_note_is_written_as_the_machine_user_with_one_login(settings: Settings) -> None:
    notes.write_note(settings, "train_scout", "asset__2026-11-21T06:00:00+00:00_x", "scout 1.0.1 registered")
    notes.write_note(settings, "train_scout", "r2", "y" * 2000)
    login, first, second = Api.seen
    assert login[:3] == ("POST", "/auth/token", {"username": "machine", "password": "pw"})
    assert first == (
        "PATCH", "/api/v2/dags/train_scout/dagRuns/asset__2026-11-21T06%3A00%3A00%2B00%3A00_x",
        {"note": "scout 1.0.1 registered"}, "Bearer t0",
    )  # fmt: skip
    assert len(second[2]["note"]) < 1000


def test_an_expired_token_costs_one_fresh_login(settings: Settings) -> None:
    notes.write_note(settings, "d", "r", "one")
    Api.refused = {"t0"}
    notes.write_note(settings, "d", "r", "two")
    assert [entry[0] for entry in Api.seen] == ["POST", "PATCH", "PATCH", "POST", "PATCH"]
    assert Api.seen[-1][2:] == ({"note": "two"}, "Bearer t1")


def test_a_token_of_another_login_serves_without_a_password(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    given = Settings(airflow_url=settings.airflow_url, airflow_token="the-token")  # type: ignore[arg-type]
    Api.refused = {"t0", "t1"}
    notes.write_note(given, "d", "r", "text")
    assert notes.paused_dags(given, ["train_scout", "train_desk", "train_new"]) == {"train_desk"}
    assert {(method, token) for method, _, _, token in Api.seen} == {
        ("PATCH", "Bearer the-token"),
        ("GET", "Bearer the-token"),
    }
    Api.refused = {"the-token"}
    monkeypatch.setattr(notes, "load_settings", lambda: given.model_copy(update={"airflow_password": SecretStr("pw")}))
    with caplog.at_level(logging.WARNING):
        notes.note_run({"dag_run": SimpleNamespace(dag_id="d", run_id="r")}, "text")
    assert "the note of d r was not written" in caplog.text
    assert "POST" not in {method for method, *_ in Api.seen}  # a fresh login would be another user


@pytest.mark.parametrize(
    "changes",
    [{"airflow_password": None}, {"airflow_url": "http://127.0.0.1:1"}, {"airflow_url": "file:///etc/passwd"}],
)
def test_a_note_that_cannot_be_written_fails_nothing(
    changes: dict[str, Any], settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broken = settings.model_copy(update=changes)
    monkeypatch.setattr(notes, "load_settings", lambda: broken)
    run = SimpleNamespace(dag_id="train_scout", run_id="r")
    with caplog.at_level(logging.WARNING):
        notes.note_run({"dag_run": run}, "text")
    assert "the note of train_scout r was not written" in caplog.text
    assert "pw" not in caplog.text


@pytest.mark.parametrize("answer", [b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{", b""])
def test_an_answer_that_breaks_off_fails_nothing(
    answer: bytes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            for _ in range(2):
                connection, _address = server.accept()
                with connection:
                    connection.recv(65536)
                    connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        settings = Settings(airflow_url=url, airflow_token="t")  # type: ignore[arg-type]
        for module in (notes, nightly):
            monkeypatch.setattr(module, "load_settings", lambda: settings)
        with caplog.at_level(logging.WARNING):
            notes.note_run({"dag_run": SimpleNamespace(dag_id="train_scout", run_id="r")}, "text")
            assert nightly.awake(["scout"]) == ["scout"]
    assert "the note of train_scout r was not written" in caplog.text
    assert "does not say which DAGs are paused" in caplog.text


def test_the_night_leaves_paused_agents_out(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nightly, "load_settings", lambda: settings)
    assert nightly.awake(["scout", "desk", "new"]) == ["scout", "new"]
    Api.refused = {"t0"}  # the token expired meanwhile: one fresh login
    assert nightly.awake(["desk", "scout"]) == ["scout"]


@pytest.mark.parametrize("password", [None, "pw"], ids=["no password", "away"])
def test_where_airflow_cannot_be_asked_the_night_trains_all(
    password: str | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    notes._links.clear()
    away = Settings(airflow_url="http://127.0.0.1:1", airflow_password=password)  # type: ignore[arg-type]
    monkeypatch.setattr(nightly, "load_settings", lambda: away)
    with caplog.at_level(logging.WARNING):
        assert nightly.awake(["scout", "desk"]) == ["scout", "desk"]
    assert "does not say which DAGs are paused" in caplog.text
