"""The way out: what a webhook, Slack and a mail server get, and what an error says when they are away."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from perennial.alerts.channel import Mail, Webhook, channel_of
from perennial.alerts.kinds import Alert, Kind
from perennial.errors import AlertUndelivered, NotConfigured

ALERT = Alert(
    id=7,
    kind=Kind.HOLD,
    agent="scout",
    cause="job",
    text="scout: held",
    raised_at=datetime(2026, 11, 21, 14, 2, tzinfo=UTC),
)
SECRET = "s3cret-token"


class Hook(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Hook)
        self.got: list[tuple[str, dict[str, str], Any]] = []
        self.code = 200

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Hook(BaseHTTPRequestHandler):
    server: Hook

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.got.append((self.path, dict(self.headers), body))
        self.send_response(self.server.code)
        if self.server.code == 302:
            self.send_header("Location", self.server.url + "/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()


@pytest.fixture
def hook() -> Iterator[Hook]:
    server = Hook()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def _connection(kind: str, **fields: Any) -> Any:
    known = {"host": "", "port": None, "login": "", "password": "", "schema": "", "extra": {}}
    return channel_of(kind, **{**known, **fields})


def test_a_webhook_gets_the_whole_alert_and_its_token(hook: Hook) -> None:
    port = hook.server_address[1]
    way = _connection("http", host="127.0.0.1", port=port, schema="http", password=SECRET, extra={"path": "/alerts"})
    way.send(ALERT)
    path, headers, body = hook.got[0]
    assert (path, headers["Authorization"]) == ("/alerts", f"Bearer {SECRET}")
    assert body["kind"] == "hold"
    assert body["message"] == ALERT.told()
    assert body["runbook"] == "docs/runbooks/hold.md"


def test_slack_gets_its_own_body_at_the_secret_path(hook: Hook) -> None:
    _connection("slackwebhook", host=hook.url, password="T0/B0/xyz").send(ALERT)
    assert hook.got[0][0] == "/T0/B0/xyz"
    assert hook.got[0][2] == {"text": ALERT.told()}
    assert _connection("slackwebhook", password="T0/B0/xyz").url == "https://hooks.slack.com/services/T0/B0/xyz"


@pytest.mark.parametrize("code", [302, 403, 500])
def test_a_refusal_says_so_without_the_secret_and_follows_no_redirect(hook: Hook, code: int) -> None:
    hook.code = code
    way = _connection("slackwebhook", host=hook.url, password=SECRET)
    with pytest.raises(AlertUndelivered, match=str(code)) as caught:
        way.send(ALERT)
    assert SECRET not in f"{caught.value!r} {caught.value.__cause__!r} {way!r}"
    assert len(hook.got) == 1


def test_a_webhook_that_is_away_is_an_error_of_ours(hook: Hook) -> None:
    url = hook.url
    hook.shutdown()
    hook.server_close()
    with pytest.raises(AlertUndelivered, match="away"):
        Webhook(url=f"{url}/{SECRET}").send(ALERT)


class _Babbling(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        self.rfile.readline()
        self.wfile.write(b"no http at all " + SECRET.encode() + b"\r\n\r\n")


def test_an_answer_that_is_no_http_is_an_error_of_ours() -> None:
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Babbling)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with pytest.raises(AlertUndelivered, match=r"away \(BadStatusLine\)") as caught:
        Webhook(url=f"http://127.0.0.1:{server.server_address[1]}/{SECRET}").send(ALERT)
    server.shutdown()
    server.server_close()
    assert SECRET not in f"{caught.value!r} {caught.value.__cause__!r}"


class _Smtp(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        self.wfile.write(b"220 test\r\n")
        data = False
        lines: list[bytes] = []
        for raw in self.rfile:
            line = raw.rstrip(b"\r\n")
            if data:
                if line == b".":
                    self.server.mails.append(b"\n".join(lines))  # type: ignore[attr-defined]
                    data = False
                    self.wfile.write(b"250 taken\r\n")
                else:
                    lines.append(line)
                continue
            word = line.split(b" ")[0].upper()
            data = word == b"DATA"
            answer = {b"DATA": b"354 go on", b"QUIT": b"221 bye"}.get(word, b"250 ok")
            self.wfile.write(answer + b"\r\n")
            if word == b"QUIT":
                return


@pytest.fixture
def mail_server() -> Iterator[Any]:
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Smtp)
    server.daemon_threads = True
    server.mails = []  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_mail_carries_the_message_and_one_id_for_its_repeats(mail_server: Any) -> None:
    extra = {
        "from_email": "perennial@example.org",
        "to": "a@example.org, b@example.org",
        "disable_ssl": True,
        "disable_tls": True,
    }
    way = _connection("smtp", host="127.0.0.1", port=mail_server.server_address[1], extra=extra)
    way.send(ALERT)
    way.send(ALERT)
    first, second = (mail.decode() for mail in mail_server.mails)
    assert "Subject: Perennial hold: scout" in first
    assert "To: a@example.org, b@example.org" in first
    assert [line for line in first.splitlines() if line.startswith("Message-ID")] == [
        line for line in second.splitlines() if line.startswith("Message-ID")
    ]


def test_a_mail_server_without_the_encryption_that_was_asked_for_gets_nothing(mail_server: Any) -> None:
    way = Mail(host="127.0.0.1", port=mail_server.server_address[1], sender="p@example.org", to=("a@example.org",))
    with pytest.raises(AlertUndelivered):
        way.send(ALERT)
    assert mail_server.mails == []


@pytest.mark.parametrize(
    ("kind", "fields", "said"),
    [
        ("smtp", {"host": "mail"}, "from_email and to"),
        ("http", {}, "host"),
        ("http", {"host": "file:///etc/passwd"}, "host"),
        ("postgres", {"host": "db"}, "type"),
    ],
    ids=["mail without people", "no host", "a file", "another type"],
)
def test_a_connection_that_cannot_work_says_why(kind: str, fields: dict[str, Any], said: str) -> None:
    with pytest.raises(NotConfigured, match=said):
        _connection(kind, **fields)
