"""Takes a deployment away: what it would remove, then the removal itself, each step safe to repeat after a kill.

Order: processes, then our schema and roles, then the home folder. The addresses stand in the home folder, so they go late: killed
anywhere before, the same command finds them again.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from perennial.errors import NotConfigured, StackError, StoreUnavailable
from perennial.settings import Settings
from perennial.stack.control import down
from perennial.stack.home import Home
from perennial.stack.upgrade import busy
from perennial.storage.queries import load

ROLES = ("perennial_app", "perennial_admit", "perennial_owner")
_OURS = (
    "state.json",
    "secrets.json",
    "connections.json",
    "settings.json",
    "redaction.key",
    "keys",
    "inbox",
    "bases",
    "work",
    "models",
)
LEFT = (
    "the package: pip uninstall perennial",
    "our DAG files, in the DAGs folder of an Airflow of your own: alerts, fleet_check, harvest, nightly_retrain, reports, retention, "
    "rollout, rollout_watch, train (.py); then `airflow dags delete` each DAG that is left",
    "in Airflow: the pools gpu and cpu, the connections perennial_db, perennial_admit_db and perennial_alerts, and what an "
    "airflow_settings.yaml of yours made: `airflow pools delete NAME`, `airflow connections delete NAME`",
    "your fleet files, and what the folder target wrote for agents",
)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What there is to remove. ``database`` None: the database is in the home folder, or none is set."""

    home: Path | None
    embedded: bool
    database: str | None
    left: tuple[str, ...]

    @property
    def lines(self) -> list[str]:
        """What would go, a line each; no password is in it."""
        found = ["everything that `perennial up` started: stopped"] if self.embedded else []
        if self.database is not None:
            found.append(
                f"in {self.database}: the schema perennial with every row in it, and the roles {', '.join(ROLES)}"
            )
        if self.home is not None:
            what = "models, keys, logs" + (
                ", and the databases of Perennial, Airflow and MLflow" if self.embedded else ""
            )
            found.append(f"{self.home}: {what}")
        return found


def plan(place: Home, settings: Settings) -> Plan:
    """Look, and change nothing. StackError when the home folder is none of ours, so that a wrong setting deletes nobody's files."""
    there = place.root.is_dir() and any(place.root.iterdir())
    if there and not any((place.root / name).exists() for name in _OURS):
        raise StackError(f"{place.root} does not look like a home of Perennial; correct PERENNIAL_HOME")
    embedded = place.database.is_dir()
    url = None if embedded or settings.owner_database_url is None else settings.owner_url()
    mlflow = () if embedded else ("MLflow: the registered models and the experiments that are named after your agents",)
    return Plan(
        home=place.root if there else None, embedded=embedded, database=None if url is None else _shown(url), left=(*LEFT, *mlflow)
    )  # fmt: skip


def uninstall(place: Home, settings: Settings, *, force: bool = False, with_airflow: bool = False) -> Plan:
    """Remove what ``plan`` shows. Killed, run it again; with nothing left it changes nothing.

    Refuses (StackError) while a rollout is open or a training runs, unless ``force``, and on an embedded stack unless ``with_airflow``,
    since the data of its Airflow and MLflow lie in the same folder. NotConfigured when a database is used whose owner is not set.
    """
    found = plan(place, settings)
    if found.embedded and not with_airflow:
        raise StackError(
            f"{place.root} also holds the data of Airflow and MLflow; take a backup, then say --with-airflow-and-mlflow"
        )
    if not found.embedded and found.database is None and settings.database_url is not None:
        raise NotConfigured("PERENNIAL_OWNER_DATABASE_URL", "only the owner of the schema may drop it")
    if found.embedded:
        if not force:
            _refuse_when_busy(place, settings)
        down(place)
    elif found.database is not None:
        _drop(settings.owner_url(), force=force)
    if found.home is not None:
        _remove(found.home)
    return found


def _refuse_when_busy(place: Home, settings: Settings) -> None:
    """Look into the embedded database while it runs; one that is down trains nothing and serves nobody."""
    from perennial.stack.state import supervisor_runs

    if not supervisor_runs(place):
        return
    import psycopg

    try:
        with psycopg.connect(settings.owner_url(), autocommit=True, connect_timeout=10) as connection:
            _check(connection)
    except psycopg.OperationalError as error:
        raise StoreUnavailable(
            "the database does not say whether something runs; `perennial down` first, or --force"
        ) from error


def _check(connection: Any) -> None:
    found = busy(connection)
    if found:
        raise StackError(
            f"not now: {'; '.join(found)}. Wait for it, decide it with `perennial rollout`, or say --force"
        )


def _drop(url: str, *, force: bool) -> None:
    """Our schema with everything in it, then what the roles may still do in this database, then the roles that may be dropped."""
    import psycopg
    from psycopg import sql

    statements = load("perennial.stack", "uninstall.sql")
    try:
        with psycopg.connect(url, autocommit=True, connect_timeout=10) as connection:
            if not force:
                _check(connection)
            with connection.transaction():
                connection.execute(statements["drop_view"])
                connection.execute(statements["drop_schema"])
            known = {row[0] for row in connection.execute(statements["known_roles"], {"names": list(ROLES)})}
            for role in (name for name in ROLES if name in known and name != unquote(urlsplit(url).username or "")):
                try:
                    connection.execute(sql.SQL(statements["drop_role"]).format(role=sql.Identifier(role)))
                except (psycopg.errors.InsufficientPrivilege, psycopg.errors.DependentObjectsStillExist):
                    continue  # said at the end: a role is the administrator's to drop
    except psycopg.OperationalError as error:
        raise StoreUnavailable("the database is away; nothing of it was removed, run this again") from error


def roles_left(url: str | None) -> tuple[str, ...]:
    """Which of our roles the server still has; for an administrator to drop."""
    if url is None:
        return ()
    import psycopg

    try:
        with psycopg.connect(url, autocommit=True, connect_timeout=10) as connection:
            rows = connection.execute(load("perennial.stack", "uninstall.sql")["known_roles"], {"names": list(ROLES)})
            return tuple(sorted(row[0] for row in rows))
    except psycopg.OperationalError:
        return ()


def _remove(folder: Path) -> None:
    """The folder with everything in it, in an order in which a killed removal can be run again: the addresses of an embedded database
    before the database, which then is not looked for, and what makes this a home of ours last."""
    last = ["connections.json", "postgres", "settings.json", "state.json"]
    for path in sorted(folder.iterdir(), key=lambda path: last.index(path.name) if path.name in last else -1):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    folder.rmdir()


def _shown(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.hostname or 'the local server'}{f':{parts.port}' if parts.port else ''}{parts.path}"
