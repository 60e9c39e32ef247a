"""A private Airflow for the bridge's tests: own home, own database, free ports, stub flows, everything ended with the session."""

from __future__ import annotations

import base64
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

from perennial.stack.launch import LAUNCH
from tests.stack_fixture import CALM, turn_to_boot

ROOT = Path(__file__).resolve().parents[3]
BUSY = 3.0  # times below are those of an idle machine
PARTS = {"api": "api-server", "scheduler": "scheduler", "dag-processor": "dag-processor", "triggerer": "triggerer"}

AGENT_FILE = """
from dataclasses import dataclass
from typing import ClassVar

from perennial.fleet import Agent, Rollout, Task


@dataclass(frozen=True, kw_only=True)
class Nothing:
    key: ClassVar[str] = "nothing.v1"


AGENT = Agent(name="{name}", owner="tests", tasks=(Task(name="topic"), Task(name="tone")), trainer=Nothing(),
              rollout=Rollout(steps=(0.05, 0.5, 1.0)), pool="{pool}")
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Stack:
    """Airflow's four processes with the repository's own DAGs."""

    home: Path
    airflow_db: str  # postgresql://
    perennial_db: str
    port: int = field(default_factory=free_port)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)

    @property
    def stub(self) -> Path:
        return self.home / "stub"

    @property
    def fleet(self) -> Path:
        return self.home / "fleet"

    @property
    def environment(self) -> dict[str, str]:
        here = Path(__file__).parent
        return {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(here / "stub_settings"), str(ROOT / "include"), str(ROOT)]),
            "AIRFLOW_HOME": str(self.home / "airflow"),
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__PARALLELISM": "8",
            "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__FERNET_KEY": base64.urlsafe_b64encode(b"x" * 32).decode(),
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{self.port}/execution/",
            "AIRFLOW__CORE__HOSTNAME_CALLABLE": "socket.gethostname",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin,editor:user,second:user,reader:viewer,machine:op",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(self.home / "passwords.json"),
            "AIRFLOW__CORE__MIN_SERIALIZED_DAG_UPDATE_INTERVAL": "2",
            "AIRFLOW__CORE__MIN_SERIALIZED_DAG_FETCH_INTERVAL": "1",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": self.airflow_db.replace(
                "postgresql://", "postgresql+psycopg2://", 1
            ),
            "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": CALM["AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME"],
            "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5",
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "12",
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(self.port),
            "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{self.port}",
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__API__SECRET_KEY": "s" * 40,
            "AIRFLOW__API_AUTH__JWT_SECRET": "j" * 64,
            "AIRFLOW__API_AUTH__JWT_ISSUER": "perennial-tests",
            "AIRFLOW_CONN_PERENNIAL_DB": self.perennial_db.replace("postgresql://", "postgres://", 1),
            "AIRFLOW_CONN_PERENNIAL_ADMIT_DB": self.perennial_db.replace("postgresql://", "postgres://", 1),
            "PERENNIAL_HOME": str(self.home / "perennial"),
            "PERENNIAL_FLEET_FOLDER": str(self.fleet),
            "PERENNIAL_AIRFLOW_URL": f"http://127.0.0.1:{self.port}",
            "PERENNIAL_AIRFLOW_PASSWORD": "machine-password",
            "PERENNIAL_STUB": str(self.stub),
            "OPENBLAS_NUM_THREADS": "1",
        }

    def start(self, *agents: str, pools: dict[str, int] | None = None) -> None:
        """Migrate, write the fleet, start the processes, wait until every agent's DAG is known."""
        for name in ("inbox", "due", "claimed", "running", "released", "state", "script"):
            (self.stub / name).mkdir(parents=True)
        (self.stub / "journal.jsonl").touch()
        self.fleet.mkdir(parents=True)
        (self.home / "perennial").mkdir()
        passwords = {name: f"{name}-password" for name in ("admin", "editor", "second", "reader", "machine")}
        (self.home / "passwords.json").write_text(json.dumps(passwords))
        for agent in agents:
            self.add_agent(agent)
        wanted = self.home / "pools.json"
        wanted.write_text(json.dumps({
            name: {"slots": slots, "description": "tests", "include_deferred": False}
            for name, slots in (pools or {"gpu": 2, "cpu": 8}).items()
        }))  # fmt: skip
        with turn_to_boot():
            self._airflow("db", "migrate")
            self._airflow("pools", "import", str(wanted))
            for part in PARTS:
                self.launch(part)
            self.wait(lambda: all(f"train_{agent}" in self.dags() for agent in agents), 150, "the DAGs appear")
        for dag in ("harvest", "rollout_watch", "report_buffers"):  # not what is tested here
            self.call("PATCH", f"/api/v2/dags/{dag}", {"is_paused": True})
        self.end_the_night(*agents)
        self.wait(lambda: self.health("triggerer") and self.health("scheduler"), 60, "scheduler and triggerer are well")

    def end_the_night(self, *agents: str) -> None:
        """Airflow makes up for a night that is less than a tenth of a day past: between two and half past four its trainings would
        come between those of the tests."""
        self.call("PATCH", "/api/v2/dags/nightly_retrain", {"is_paused": True})
        for run in self.runs("nightly_retrain"):
            if run["state"] not in {"success", "failed"}:
                path = f"/api/v2/dags/nightly_retrain/dagRuns/{run['dag_run_id']}"
                self.call("PATCH", path, {"state": "failed"})
        for agent in agents:
            dag = f"train_{agent}"
            for run in self.runs(dag):
                self.finished(dag, run["dag_run_id"])

    def add_agent(self, name: str, pool: str = "gpu") -> None:
        (self.fleet / f"{name}.py").write_text(AGENT_FILE.format(name=name, pool=pool))

    def _airflow(self, *words: str) -> None:
        done = subprocess.run(
            [sys.executable, "-m", LAUNCH, "airflow", *words], env=self.environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[-2000:]

    def launch(self, part: str) -> None:
        log = open(self.home / f"{part}.log", "ab")  # noqa: SIM115 - the child keeps it
        command = [sys.executable, "-m", LAUNCH, "airflow", PARTS[part]]
        if part in {"scheduler", "triggerer"}:
            command.append("--skip-serve-logs")
        self.processes[part] = subprocess.Popen(
            command, env=self.environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True, cwd=self.home
        )

    def stop(self) -> None:
        for process in self.processes.values():
            _kill_session(process.pid)
            process.wait()

    # Airflow's REST API

    def call(self, method: str, path: str, body: Any = None, user: str = "admin") -> Any:
        if user not in self.tokens:
            self.tokens[user] = self._send(
                "POST", "/auth/token", {"username": user, "password": f"{user}-password"}, None
            )["access_token"]
        return self._send(method, path, body, self.tokens[user])

    def _send(self, method: str, path: str, body: Any, token: str | None) -> Any:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", method=method, data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})},
        )  # fmt: skip
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.loads(answer.read() or b"null")

    def dags(self) -> set[str]:
        try:
            return {dag["dag_id"] for dag in self.call("GET", "/api/v2/dags?limit=100")["dags"]}
        except (OSError, KeyError):
            return set()

    def health(self, part: str) -> bool:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api/v2/monitor/health", timeout=10) as answer:
            return json.loads(answer.read())[part]["status"] == "healthy"

    def runs(self, dag: str) -> list[dict[str, Any]]:
        return self.call("GET", f"/api/v2/dags/{dag}/dagRuns?order_by=run_after&limit=100")["dag_runs"]

    def run(self, dag: str, run_id: str) -> dict[str, Any]:
        return self.call("GET", f"/api/v2/dags/{dag}/dagRuns/{run_id}")

    def trigger(self, dag: str, conf: dict[str, Any] | None = None, user: str = "admin") -> str:
        run_id = f"test__{secrets.token_hex(4)}"
        body = {"dag_run_id": run_id, "logical_date": None, "conf": conf or {}}
        self.call("POST", f"/api/v2/dags/{dag}/dagRuns", body, user)
        return run_id

    def states(self, dag: str, run_id: str) -> dict[str, str]:
        found = self.call("GET", f"/api/v2/dags/{dag}/dagRuns/{run_id}/taskInstances?limit=100")["task_instances"]
        return {
            one["task_id"] + (f"[{one['map_index']}]" if one["map_index"] >= 0 else ""): one["state"] for one in found
        }

    def finished(self, dag: str, run_id: str, seconds: float = 90) -> str:
        """Wait until the run ends; its state."""
        self.wait(lambda: self.run(dag, run_id)["state"] in {"success", "failed"}, seconds, f"{dag} {run_id} ends")
        return str(self.run(dag, run_id)["state"])

    # the stub flows

    def due(self, agent: str, reason: str = "threshold", priority: int = 0, **said: Any) -> float:
        """Make an agent due, with a script, and ring the bell; when."""
        for killed_before in self.stub.glob(f"{agent}.*.killed"):
            killed_before.unlink()
        (self.stub / "script" / f"{agent}.json").write_text(json.dumps(said))
        beside = self.stub / "due" / f"{agent}.tmp"
        beside.write_text(json.dumps({"reason": reason, "priority": priority}))
        beside.rename(self.stub / "due" / f"{agent}.json")
        self.notify(agent)
        return time.time()

    def release(self, agent: str, **said: Any) -> float:
        """Put a released version before the agent's rollout, as ``register`` does; when."""
        (self.stub / "script" / f"{agent}.json").write_text(json.dumps(said))
        (self.stub / "released" / agent).touch()
        since = time.time()
        found = self.call("GET", f"/api/v2/assets?name_pattern=candidate_{agent}")["assets"]
        self.call("POST", "/api/v2/assets/events", {"asset_id": found[0]["id"], "extra": {}})
        return since

    def notify(self, agent: str) -> None:
        import psycopg

        with psycopg.connect(self.perennial_db, autocommit=True) as connection:
            connection.execute("SELECT pg_notify('perennial_due', %s)", (agent,))

    def journal(self, agent: str | None = None, since: float = 0.0) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in (self.stub / "journal.jsonl").read_text().splitlines()]
        return [line for line in lines if line["at"] >= since and (agent is None or line["agent"] == agent)]

    def wait_step(self, agent: str, step: str, since: float, seconds: float = 60) -> dict[str, Any]:
        def found() -> dict[str, Any] | None:
            return next((line for line in self.journal(agent, since) if line["step"] == step), None)

        self.wait(found, seconds, f"{agent} reaches {step}")
        line = found()
        assert line is not None
        return line

    def wait(self, condition: Callable[[], Any], seconds: float, what: str) -> None:
        deadline = time.monotonic() + seconds * BUSY
        while time.monotonic() < deadline:
            try:
                if condition():
                    return
            except (HTTPError, OSError):
                pass  # it is starting, or being restarted by the test
            time.sleep(0.1)
        raise AssertionError(f"within {seconds:.0f} s {what} did not come true; logs in {self.home}")


def _kill_session(leader: int) -> None:
    """SIGKILL to every process of a session, however it was reparented."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if os.getsid(int(entry.name)) == leader:
                os.kill(int(entry.name), signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue
