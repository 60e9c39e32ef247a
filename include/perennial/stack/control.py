"""Start, stop and look at the embedded stack: what the command line and tests call."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from perennial.errors import StackError
from perennial.stack import logs, postgres, processes
from perennial.stack.environment import fleet_folder
from perennial.stack.files import exclusive, read_json, write_private
from perennial.stack.home import Home
from perennial.stack.ports import LOOPBACK, Ports, chosen_ports, require_free
from perennial.stack.secrets import Secrets, read_or_make, signing_keys
from perennial.stack.state import PartState, Phase, StackState, read_state, supervisor_runs
from perennial.stack.sweep import end_leftovers, leftovers

Tell = Callable[[StackState], None]
_GIVE_UP_AFTER = 3  # failed starts of one part in a row


@dataclass(frozen=True, kw_only=True, slots=True)
class Running:
    """Where a running stack is found, and who may log in."""

    home: Home
    ports: Ports
    logins: dict[str, str] = field(repr=False)
    seconds: float
    reused: bool

    @property
    def airflow_url(self) -> str:
        return f"http://{LOOPBACK}:{self.ports.airflow}"

    @property
    def mlflow_url(self) -> str:
        return f"http://{LOOPBACK}:{self.ports.mlflow}"

    @property
    def data_plane_url(self) -> str:
        return f"http://{LOOPBACK}:{self.ports.data_plane}"


def up(place: Home, *, tell: Tell | None = None, seconds: float = 420.0) -> Running:
    """Start what does not run and wait until all of it is well.

    Idempotent; two calls at once wait for each other. Raises PortTaken before anything is started, and StackError with
    the end of the log when a part does not come up.
    """
    if not sys.platform.startswith("linux"):
        raise StackError("the embedded stack needs Linux; elsewhere use docker-compose.yaml")
    began = time.monotonic()
    place.make()
    with exclusive(place.command_lock):
        secrets = read_or_make(place)
        reused = _reuse(place)
        if not reused:
            _launch(place, secrets)
        state = _wait_until_well(place, tell, began + seconds)
    return Running(
        home=place, ports=Ports(**state.ports), logins=secrets.logins(), seconds=time.monotonic() - began, reused=reused
    )


def _reuse(place: Home) -> bool:
    """True when a supervisor is at work; it is told to look for parts that it left out."""
    while supervisor_runs(place):
        state = read_state(place)
        if state.phase in (Phase.STARTING, Phase.RUNNING) and state.supervisor:
            processes.send([state.supervisor], signal.SIGHUP)
            return True
        time.sleep(0.1)  # it is stopping, or has not written its first word yet
    return False


def _launch(place: Home, secrets: Secrets) -> None:
    left = end_leftovers(place, read_state(place))
    if left:
        raise StackError(f"processes {sorted(left)} of an earlier stack do not end; look at them with `ps`")
    ports = chosen_ports(file=read_json(place.settings_file))
    require_free(ports)
    write_private(place.passwords_file, json.dumps(secrets.logins()))
    write_connections(place, ports, secrets)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PERENNIAL_HOME"] = str(place.root)
    package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [package, environment.get("PYTHONPATH")]))
    StackState(phase=Phase.STARTING).write(place)
    with open(place.log_of("supervisor"), "ab") as log:
        os.fchmod(log.fileno(), 0o600)
        child = subprocess.Popen(
            [sys.executable, "-m", "perennial.stack.supervisor"], env=environment, cwd=place.root, stdin=subprocess.DEVNULL,
            stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    while not supervisor_runs(place):
        if child.poll() is not None:
            raise StackError(f"the supervisor ended at once: {logs.tail(place.log_of('supervisor'))}")
        time.sleep(0.02)


def _wait_until_well(place: Home, tell: Tell | None, deadline: float) -> StackState:
    while True:
        state = read_state(place)
        if tell is not None:
            tell(state)
        if state.phase is Phase.RUNNING:
            waiting = [part for part in state.parts.values() if not _settled(part.state)]
            if not waiting:
                return state
        if not supervisor_runs(place):
            why = state.problem or logs.tail(place.log_of("supervisor"))
            raise StackError(f"the supervisor ended: {why}")
        for part in state.parts.values():
            if part.restarts >= _GIVE_UP_AFTER and not _settled(part.state) and not part.since:
                raise StackError(_story_of_failure(place, part.name, part.detail))
        if time.monotonic() > deadline:
            late = [part.name for part in state.parts.values() if not _settled(part.state)]
            raise StackError(f"{', '.join(late)} did not come up in time; `perennial status` and {place.logs} say more")
        time.sleep(0.1)


def _settled(state: PartState) -> bool:
    return state in (PartState.RUNNING, PartState.DONE, PartState.SKIPPED)


def _story_of_failure(place: Home, name: str, detail: str) -> str:
    log = place.log_of(name)
    return (
        f"{name} {detail}, {_GIVE_UP_AFTER} times; the end of {log}:\n{logs.tail(log)}\n`perennial down` stops the rest"
    )


def write_connections(place: Home, ports: Ports, secrets: Secrets) -> None:
    """What every process of Perennial reads to find the stack (``perennial.settings``); mode 0600, it holds passwords."""
    private, public = signing_keys(place, secrets.signing_key_password)

    def database(role: str) -> str:
        return postgres.url(ports.postgres, "perennial", role, str(getattr(secrets, role)))

    record = {
        "home": str(place.root),
        "fleet_folder": str(fleet_folder(place)),
        "database_url": database("perennial_app"),
        "admit_database_url": database("perennial_admit"),
        "owner_database_url": database("perennial_owner"),
        "mlflow_url": f"http://{LOOPBACK}:{ports.mlflow}",
        # what MLflow's API only marks as deleted, retention erases here
        "retention_mlflow_backend": postgres.url(ports.postgres, "mlflow", "mlflow", secrets.mlflow),
        "airflow_url": f"http://{LOOPBACK}:{ports.airflow}",
        "airflow_user": "machine",
        "airflow_password": secrets.login_machine,
        "data_plane_port": ports.data_plane,
        "data_plane_url": f"http://{LOOPBACK}:{ports.data_plane}",
        "signing_key_file": str(private),
        "signing_key_password": secrets.signing_key_password,
        "verify_key_file": str(public),
        "inbox": str(place.inbox),
    }
    write_private(place.connections_file, json.dumps(record, indent=1))


def down(place: Home, *, seconds: float = 60.0) -> int:
    """Stop everything, whoever is still there; returns how many processes had to be ended without their supervisor.

    Raises StackError when a process survives even kill -9.
    """
    if not place.root.is_dir():
        return 0
    with exclusive(place.command_lock):
        if supervisor_runs(place):
            _ask_supervisor(place, time.monotonic() + seconds)
        state = read_state(place)
        orphans = leftovers(place, state)
        left = end_leftovers(place, state)
        if left:
            raise StackError(
                f"processes {sorted(left)} do not end; look at them with `ps`, then run `perennial down` again"
            )
        if state.phase is not Phase.STOPPED or state.sessions:
            for part in state.parts.values():
                part.state = part.state if part.state is PartState.SKIPPED else PartState.STOPPED
            state.phase, state.supervisor, state.sessions = Phase.STOPPED, 0, {}
            with suppress(OSError):  # a full disk: all is stopped nevertheless, and the next `up` looks for itself
                state.write(place)
    return len(orphans)


def _ask_supervisor(place: Home, deadline: float) -> None:
    """SIGTERM until its lock is free and its process gone; kill -9 when it takes too long."""
    asked: set[int] = set()
    while supervisor_runs(place) or any(_lives(pid) for pid in asked):
        state = read_state(place)
        row = processes.look_up(state.supervisor) if state.supervisor else None
        if row is not None and row.started == state.supervisor_started:
            if row.pid not in asked:
                asked.add(row.pid)
                processes.send([row.pid], signal.SIGTERM)
            if time.monotonic() > deadline:
                processes.send([row.pid], signal.SIGKILL)
        time.sleep(0.05)


def _lives(pid: int) -> bool:
    row = processes.look_up(pid)
    return row is not None and row.alive
