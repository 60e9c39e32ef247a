"""Is a part well? Asked over the wire with the standard library alone, so that the supervisor stays small."""

from __future__ import annotations

import http.client
import json
import socket
import struct
import threading
import time
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from perennial.stack.ports import LOOPBACK


class Health(StrEnum):
    """The answer of one look."""

    GOOD = "good"
    BAD = "bad"
    UNKNOWN = "unknown"  # the one who would know does not answer; says nothing about this part


def get(port: int, path: str, *, seconds: float = 3.0, host: str = LOOPBACK) -> tuple[int, bytes]:
    """Status and body of a GET, on loopback unless told; OSError or HTTPException when there is none in time."""
    link = http.client.HTTPConnection(host, port, timeout=seconds)
    try:
        link.request("GET", path)
        answer = link.getresponse()
        return answer.status, answer.read(1_000_000)
    finally:
        link.close()


@dataclass(frozen=True, kw_only=True, slots=True)
class HttpProbe:
    """Well when the path answers 200."""

    port: int
    path: str
    host: str = LOOPBACK

    def look(self, since: float) -> Health:
        try:
            status, _ = get(self.port, self.path, host=self.host)
        except (OSError, http.client.HTTPException):
            return Health.BAD
        return Health.GOOD if status == 200 else Health.BAD


@dataclass(frozen=True, kw_only=True, slots=True)
class PostgresProbe:
    """Well when the server asks for a password: it then accepts sessions, and does not recover from a crash or shut down.

    What pg_isready does: a StartupMessage (protocol 3.0), and good-bye after the answer. The answer is read whole, because
    closing with something unread resets the connection, which the server would log each time.
    """

    port: int

    def look(self, since: float) -> Health:
        words = struct.pack("!i", 196608) + b"user\0postgres\0database\0postgres\0\0"
        try:
            with socket.create_connection((LOOPBACK, self.port), timeout=3.0) as link:
                link.sendall(struct.pack("!i", len(words) + 4) + words)
                return Health.GOOD if link.recv(1024).startswith(b"R") else Health.BAD
        except OSError:
            return Health.BAD


class AirflowHealth:
    """The heartbeats that Airflow's API server reports, asked at most once a second for all parts."""

    def __init__(self, port: int, host: str = LOOPBACK) -> None:
        self._port, self._host = port, host
        self._guard = threading.Lock()
        self._asked = 0.0
        self._known: dict[str, datetime | None] | None = None

    def beats(self) -> dict[str, datetime | None] | None:
        """Last heartbeat by component; None when the API server or its database does not answer."""
        with self._guard:
            if time.monotonic() - self._asked >= 1.0:
                self._known = self._ask()
                self._asked = time.monotonic()
            return self._known

    def _ask(self) -> dict[str, datetime | None] | None:
        try:
            status, body = get(self._port, "/api/v2/monitor/health", seconds=5.0, host=self._host)
            report = json.loads(body) if status == 200 else {}
        except (OSError, http.client.HTTPException, ValueError):
            return None
        if report.get("metadatabase", {}).get("status") != "healthy":
            return None
        names = ("scheduler", "triggerer", "dag_processor")
        texts = {name: (report.get(name) or {}).get(f"latest_{name}_heartbeat") for name in names}
        return {name: datetime.fromisoformat(text) if text else None for name, text in texts.items()}


@dataclass(frozen=True, kw_only=True, slots=True)
class HeartbeatProbe:
    """Well when the component's last heartbeat is younger than ``stale`` seconds and was made by the present process."""

    airflow: AirflowHealth
    component: str
    stale: float

    def look(self, since: float) -> Health:
        beats = self.airflow.beats()
        if beats is None:
            return Health.UNKNOWN
        beat = beats.get(self.component)
        if beat is None or beat.timestamp() < since:
            return Health.BAD
        return Health.GOOD if time.time() - beat.timestamp() < self.stale else Health.BAD


Probe = HttpProbe | PostgresProbe | HeartbeatProbe
