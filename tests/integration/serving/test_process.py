"""The data plane as its own process: it starts without a champion, drains on a signal, and refuses to be open."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from tests.postgres_fixture import Database

FLEET = """
from perennial.fleet import Agent, Task
from perennial.trainers.ewc_text import EwcText

AGENT = Agent(name="scout", owner="tests", trainer=EwcText(), tasks=(Task(name="topic", labels=("a", "b")),))
"""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _environment(database: Database, home: Path, **more: str) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"], "PYTHONPATH": "include", "PERENNIAL_HOME": str(home),
        "PERENNIAL_DATABASE_URL": database.app, "PERENNIAL_FLEET_FOLDER": str(home / "fleet"), **more,
    }  # fmt: skip


def _start(environment: dict[str, str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "perennial.api.data_plane"]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "fleet").mkdir()
    (tmp_path / "fleet" / "scout.py").write_text(FLEET)
    return tmp_path


@pytest.fixture
def running(database: Database, home: Path) -> Iterator[tuple[httpx.Client, Any]]:
    port = _free_port()
    process = _start(_environment(database, home, PERENNIAL_DATA_PLANE_PORT=str(port)))
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20)
    deadline = time.monotonic() + 120
    while True:
        try:
            if client.get("/healthz").json()["status"] == "ok" and client.get("/v1/agents").json()["agents"]:
                break
        except (httpx.HTTPError, ValueError, KeyError):
            assert process.poll() is None, process.stdout.read() if process.stdout else ""
        assert time.monotonic() < deadline, "the data plane did not start"
        time.sleep(0.1)
    yield client, process
    if process.poll() is None:
        process.kill()
    process.wait()


@pytest.mark.req("D9", "J5")
def test_a_process_from_start_to_end(running: tuple[httpx.Client, Any], database: Database) -> None:
    client, process = running
    assert client.get("/v1/agents").json()["agents"]["scout"]["champion"] is None  # the fleet came from its file
    row = {
        "agent_name": "scout",
        "task_type": "topic",
        "input_text": "t",
        "expected_output": "a",
        "uncertainty_score": 0.9,
    }
    assert client.post("/v1/examples", json=row).json()["added"] == 1
    asked = client.post("/v1/predict", json={"agent": "scout", "task": "topic", "inputs": ["t"]})
    assert asked.status_code == 503
    assert client.post("/v1/faults", json={"agent": "scout", "version": "1.0.0", "kind": "error"}).status_code == 403
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(15) in {0, -signal.SIGTERM}
    assert time.monotonic() - began < 12
    with psycopg.connect(database.app) as connection:
        assert connection.execute("SELECT count(*) FROM perennial.examples").fetchone() == (1,)


def test_an_open_address_without_a_token_does_not_start(database: Database, home: Path) -> None:
    process = _start(_environment(database, home, PERENNIAL_DATA_PLANE_HOST="0.0.0.0", PERENNIAL_DATA_PLANE_PORT="0"))
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "PERENNIAL_DATA_PLANE_TOKEN" in output
    assert "Traceback" not in output


def test_a_taken_port_is_named(database: Database, home: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        process = _start(_environment(database, home, PERENNIAL_DATA_PLANE_PORT=port))
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "PERENNIAL_DATA_PLANE_PORT" in output
