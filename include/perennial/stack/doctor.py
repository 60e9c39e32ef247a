"""`perennial doctor`: every check that can be made from outside, each with what to do about it."""

from __future__ import annotations

import http.client
import importlib.util
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from perennial.errors import PerennialError, StackError
from perennial.stack import processes
from perennial.stack.environment import warm_workers
from perennial.stack.files import read_json
from perennial.stack.findings import Finding, Verdict, why_not_training
from perennial.stack.health import get
from perennial.stack.home import Home, project_folder
from perennial.stack.ports import LOOPBACK, SETTINGS, Ports, chosen_ports, is_free
from perennial.stack.secrets import read_or_make
from perennial.stack.state import Phase, read_state
from perennial.stack.status import StackStatus, status

_ENOUGH_DISK = 5e9
_PATIENCE = 10.0  # seconds for a connection to PostgreSQL
_STANDS_FOR_TRAINING = ("scheduler", "triggerer")


def examine(place: Home) -> Iterator[Finding]:
    """Every finding, from the machine up to the agents; those that need a running stack are left out when it is down."""
    yield from _machine(place)
    found = status(place)
    yield from _parts(place, found)
    if found.phase in (Phase.STOPPED, "unsupervised"):
        return
    state = read_state(place)
    if "scheduler" not in state.parts or "airflow" not in state.ports:
        yield Finding(
            check="supervisor", verdict=Verdict.NOTE, detail="it starts, and has begun no part yet",
            remedy=f"look again in half a minute; if it lasts, read {place.log_of('supervisor')}",
        )  # fmt: skip
        return
    if state.parts["scheduler"].session:
        yield _warm(place)
    yield from _dags(place)
    try:
        yield from _agents(place, found)
    except PerennialError as error:  # what was found so far is what it is called for
        yield Finding(
            check="training", verdict=Verdict.WRONG, detail=str(error), remedy=f"read {place.log_of('postgres')}"
        )


def _machine(place: Home) -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    good = sys.version_info[:2] == (3, 11)
    yield Finding(
        check="Python", verdict=Verdict.OK if good else Verdict.WRONG, detail=f"{version} at {sys.executable}",
        remedy="" if good else "use Python 3.11; `make install` finds it",
    )  # fmt: skip
    there = next(folder for folder in (place.root, *place.root.parents) if folder.exists())
    free = shutil.disk_usage(there).free
    yield Finding(
        check="disk", verdict=Verdict.OK if free > _ENOUGH_DISK else Verdict.WARNING, detail=f"{free / 1e9:.1f} GB free at {there}",
        remedy="" if free > _ENOUGH_DISK else "free some, or set PERENNIAL_HOME to a larger disk; PostgreSQL stops when it is full",
    )  # fmt: skip
    yield _bytecode()
    yield from _grants()


def _grants() -> Iterator[Finding]:
    from perennial.pages.roles import mistaken_grants
    from perennial.settings import load_settings

    for mistake in mistaken_grants(load_settings().pages_grants):
        what, _, remedy = mistake.partition("; ")
        yield Finding(check="grants of the pages", verdict=Verdict.WRONG, detail=what, remedy=remedy)


def _bytecode() -> Finding:
    spec = importlib.util.find_spec("airflow")
    cached = Path(importlib.util.cache_from_source(spec.origin)) if spec is not None and spec.origin else None
    if cached is not None and cached.exists():
        return Finding(check="bytecode", verdict=Verdict.OK, detail="libraries are compiled")
    return Finding(
        check="bytecode", verdict=Verdict.WARNING, detail="libraries are not compiled: every process compiles them anew",
        remedy=f"run `{sys.executable} -m compileall -q -j 0 {sys.prefix}`; unset PYTHONDONTWRITEBYTECODE",
    )  # fmt: skip


def _parts(place: Home, found: StackStatus) -> Iterator[Finding]:
    if found.phase == "unsupervised":
        yield Finding(
            check="supervisor", verdict=Verdict.WRONG, detail="it was killed; the parts run on, and nobody restarts them",
            remedy="`perennial up` starts anew, `perennial down` stops the rest",
        )  # fmt: skip
    elif found.phase == Phase.STOPPED:
        yield Finding(check="supervisor", verdict=Verdict.NOTE, detail="the stack is down", remedy="`perennial up`")
        yield from _ports(chosen_ports(file=read_json(place.settings_file)))
    for part in found.parts:
        if found.phase == Phase.STOPPED:
            break
        good = part.state in ("running", "done")
        verdict = (
            Verdict.OK if good else Verdict.NOTE if part.state in ("skipped", "starting", "waiting") else Verdict.WRONG
        )
        restarts = f", restarted {part.restarts} times" if part.restarts else ""
        yield Finding(
            check=part.name, verdict=Verdict.WARNING if good and part.restarts > 2 else verdict,
            detail=f"{part.state}{restarts}{f': {part.detail}' if part.detail else ''}",
            remedy="" if good and part.restarts <= 2 else f"read {place.log_of(part.name)}",
        )  # fmt: skip


def _ports(ports: Ports) -> Iterator[Finding]:
    for name, port in ports.record().items():
        free = is_free(port)
        yield Finding(
            check=f"port {port}", verdict=Verdict.OK if free else Verdict.WRONG,
            detail=f"{'free' if free else 'taken by another process'}, for {name}",
            remedy="" if free else f"free it, or set {SETTINGS[name]} to another port",
        )  # fmt: skip


def _warm(place: Home) -> Finding:
    if not warm_workers():
        return Finding(
            check="warm workers", verdict=Verdict.NOTE, detail="off by PERENNIAL_WARM_WORKERS: a task imports for 6 to 10 s",
            remedy="unset it, then `perennial down` and `perennial up`; costs about 0.8 GB",
        )  # fmt: skip
    session = read_state(place).parts["scheduler"].session
    rows = processes.snapshot()
    # tasks come and go: a process that ended since the snapshot maps nothing and does not count
    maps = {pid: text for pid in processes.members(rows, [session]) if pid != session and (text := _maps(pid))}
    forked, warm = list(maps), [pid for pid, text in maps.items() if "libtorch" in text]
    if forked and len(warm) == len(forked):
        return Finding(
            check="warm workers", verdict=Verdict.OK, detail=f"{len(warm)} workers have torch imported before they fork"
        )
    return Finding(
        check="warm workers", verdict=Verdict.WARNING, detail=f"{len(warm)} of {len(forked)} workers are warm",
        remedy=f"look for 'warm' in {place.log_of('scheduler')}: an import failed there",
    )  # fmt: skip


def _maps(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/maps").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _airflow(place: Home, path: str) -> Any:
    """A GET of Airflow's API as `machine`. Raises StackError when it does not answer."""
    state = read_state(place)
    port = state.ports["airflow"]
    link = http.client.HTTPConnection(LOOPBACK, port, timeout=10.0)
    try:
        login = json.dumps({"username": "machine", "password": read_or_make(place).login_machine})
        link.request("POST", "/auth/token", login, {"Content-Type": "application/json"})
        token = json.loads(link.getresponse().read())["access_token"]
        link.request("GET", path, headers={"Authorization": f"Bearer {token}"})
        return json.loads(link.getresponse().read())
    except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
        raise StackError(f"Airflow's API does not answer ({type(error).__name__}); `perennial status`") from error
    finally:
        link.close()


def _dags(place: Home) -> Iterator[Finding]:
    try:
        report = _airflow(place, "/api/v2/importErrors")
        count = _airflow(place, "/api/v2/dags?limit=1")["total_entries"]
    except StackError as error:
        yield Finding(
            check="DAGs", verdict=Verdict.WRONG, detail=str(error), remedy=f"read {place.log_of('airflow-api')}"
        )
        return
    for problem in report["import_errors"]:
        last = str(problem["stack_trace"]).strip().splitlines()[-1]
        yield Finding(
            check="DAG file", verdict=Verdict.WRONG, detail=f"{problem['filename']}: {last}",
            remedy="mend the file; it is read again within seconds",
        )  # fmt: skip
    if not report["import_errors"]:
        good = count > 0
        yield Finding(
            check="DAGs", verdict=Verdict.OK if good else Verdict.WARNING, detail=f"{count} DAGs, no import error",
            remedy="" if good else f"none found in {project_folder() / 'dags'}; set PERENNIAL_PROJECT, or wait half a minute after `up`",
        )  # fmt: skip


def _agents(place: Home, found: StackStatus) -> Iterator[Finding]:
    from perennial.storage.database import Database
    from perennial.storage.queries import load

    stopped = {part.name for part in found.parts if part.state != "running"}
    dead = tuple(sorted(name for name in _STANDS_FOR_TRAINING if name in stopped or not _beats(place, name)))
    database = Database(str(read_json(place.connections_file)["database_url"]), max_size=1, wait_seconds=_PATIENCE)
    try:
        with database.connection() as connection:
            rows = connection.execute(load("perennial.stack")["why_not_training"]).fetchall()
    finally:
        database.close()
    if not rows:
        yield Finding(
            check="training", verdict=Verdict.NOTE, detail="no agent is known yet",
            remedy="put one into include/fleet/; it is seen within seconds",
        )  # fmt: skip
    paused = _paused(place) if rows and not dead else set()
    for row in rows:
        yield why_not_training(row, dead, f"train_{row['agent']}" in paused, _waits(row))


def _waits(row: Any) -> str | None:
    """Why what is due does not start, read as the due watcher reads it."""
    from perennial.domain.words import Reason
    from perennial.flows.pause import waits
    from perennial.wiring import ports

    return waits(ports(), row["agent"], Reason.CORRECTION if row["urgent"] else Reason.THRESHOLD)


def _beats(place: Home, component: str) -> bool:
    """False when Airflow says that the component is unhealthy."""
    try:
        _, body = get(read_state(place).ports["airflow"], "/api/v2/monitor/health")
        return bool(json.loads(body)[component]["status"] == "healthy")
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return False


def _paused(place: Home) -> set[str]:
    try:
        return {row["dag_id"] for row in _airflow(place, "/api/v2/dags?paused=true&limit=500")["dags"]}
    except StackError:
        return set()  # said above, by the check of the DAGs


def is_well(findings: list[Finding]) -> bool:
    """True when nothing is wrong; warnings do not count."""
    return all(finding.verdict is not Verdict.WRONG for finding in findings)
