"""The embedded stack for tests: booted once per session on free ports, in a home of its own, by the command line.

Use it as a plugin (``pytest_plugins = ["tests.stack_fixture"]``) and mark tests ``@pytest.mark.stack``.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
# At rest a stack takes half a core, most of it for a scheduler that looks ten times a second for work. Stacks of tests rest beside others
# that work, on two cores, and have more patience.
CALM = {
    "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.3",
    "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "20",
}


def free_port_base(count: int = 4) -> int:
    """The first of ``count`` neighbouring ports that are free now, below the range that clients are given."""
    for base in range(20000 + os.getpid() % 1000 * 10, 32000, 10):
        probes = [socket.socket() for _ in range(count)]
        try:
            for offset, probe in enumerate(probes):
                probe.bind(("127.0.0.1", base + offset))
            return base
        except OSError:
            continue
        finally:
            for probe in probes:
                probe.close()
    raise RuntimeError("no free ports")


@contextmanager
def turn_to_boot() -> Iterator[None]:
    """Waits until no other worker's Airflow boots: two cores carry three stacks that run, and not three that come up at once."""
    with (Path(tempfile.gettempdir()) / "perennial-tests-boot.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@dataclass
class Stack:
    """A stack of a test's own: its home, environment and addresses, and the command line that drives it."""

    home: Path
    env: dict[str, str] = field(repr=False)

    def perennial(
        self, *words: str, check: bool = True, seconds: float = 420, **env: str
    ) -> subprocess.CompletedProcess[str]:
        """Run ``perennial WORDS`` as a person would."""
        done = subprocess.run(
            [sys.executable, "-m", "perennial.cli", *words], env=self.env | env, cwd=REPOSITORY, capture_output=True, text=True,
            timeout=seconds, check=False,
        )  # fmt: skip
        if check and done.returncode:
            raise AssertionError(
                f"perennial {' '.join(words)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
            )
        return done

    @property
    def connections(self) -> dict[str, Any]:
        """What ``up`` wrote: URLs by role, keys, addresses."""
        return dict(json.loads((self.home / "connections.json").read_text()))

    @property
    def state(self) -> dict[str, Any]:
        return dict(json.loads((self.home / "state.json").read_text()))

    @property
    def logins(self) -> dict[str, str]:
        return dict(json.loads((self.home / "airflow" / "passwords.json").read_text()))

    @property
    def fleet(self) -> Path:
        """The fleet folder of this stack: a copy, so a test may add files."""
        return Path(self.env["PERENNIAL_FLEET_FOLDER"])

    def settings(self) -> Any:
        """``perennial.settings.Settings`` of this stack."""
        from perennial.settings import Settings

        return Settings(**self.connections)

    def url(self, role: str = "app") -> str:
        """The database's URL by role: app, admit or owner."""
        return str(self.connections[{"app": "database_url"}.get(role, f"{role}_database_url")])

    def airflow(self, user: str = "machine") -> httpx.Client:
        """A logged-in client of Airflow's API."""
        base = self.connections["airflow_url"]
        login = {"username": user, "password": self.logins[user]}
        token = httpx.post(f"{base}/auth/token", json=login, timeout=60.0).raise_for_status().json()["access_token"]
        return httpx.Client(base_url=base, timeout=60.0, headers={"Authorization": f"Bearer {token}"})

    def plane(self) -> httpx.Client:
        """A client of the data plane."""
        return httpx.Client(base_url=self.connections["data_plane_url"], timeout=60.0)


def make_stack(**settings: str) -> Stack:
    """A stack that is not started yet; the caller runs ``up`` and ``down`` and then ``remove``."""
    root = Path(tempfile.mkdtemp(prefix="perennial-stack-"))
    fleet = root / "fleet"
    shutil.copytree(REPOSITORY / "include" / "fleet", fleet, ignore=shutil.ignore_patterns("__pycache__"))
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PERENNIAL_", "AIRFLOW", "POSTGRES_", "TRAINING_"))
        and name not in ("DATABASE_URL", "PYTHONDONTWRITEBYTECODE", "PYTEST_CURRENT_TEST")
    }
    env = inherited | {
        "PYTHONPATH": str(REPOSITORY / "include"), "PERENNIAL_HOME": str(root / "home"),
        "PERENNIAL_PORT_BASE": str(free_port_base()), "PERENNIAL_FLEET_FOLDER": str(fleet), "COLUMNS": "200", **settings,
    }  # fmt: skip
    return Stack(home=root / "home", env=env)


def remove(stack: Stack) -> None:
    """Stop the stack and delete its home."""
    stack.perennial("down", check=False)
    shutil.rmtree(stack.home.parent, ignore_errors=True)


def wait_until(what: str, ready: Any, *, seconds: float, every: float = 0.25) -> Any:
    """Call ``ready`` until it returns something true; an AssertionError that names ``what`` after ``seconds``."""
    deadline = time.monotonic() + seconds
    while True:
        found = ready()
        if found:
            return found
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s for {what}"
        time.sleep(every)


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """The session's stack, up and well. Tests must leave it so; those that break it make their own with ``make_stack``."""
    made = make_stack(PERENNIAL_FAULTS="1", **CALM)
    try:
        with turn_to_boot():
            made.perennial("up")
        yield made
    finally:
        remove(made)
