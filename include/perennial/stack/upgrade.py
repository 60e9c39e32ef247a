"""Brings the tables of a deployment to what the installed packages need: ours, Airflow's, MLflow's, in this order.

One at a time by an advisory lock, which dies with its holder; killed anywhere, it is run again and goes on.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, Protocol

from perennial.errors import StackError
from perennial.stack import environment
from perennial.stack.home import Home
from perennial.stack.ports import Ports
from perennial.stack.provision import MIGRATION_SECONDS, PROVISION
from perennial.stack.secrets import read_or_make
from perennial.stack.state import read_state, supervisor_runs
from perennial.storage.queries import load

CHECK_SECONDS = 120.0
WAIT_SECONDS = 3600.0
_LOOK_SECONDS = 2.0
_BEHIND = 3  # exit code of a check that found old tables

Tell = Callable[[str], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """How the tables of one system stand. ``pending`` names what would be applied; ``left_out`` says why nothing can be looked at."""

    name: str
    installed: str
    pending: tuple[str, ...] = ()
    left_out: str = ""

    def told(self) -> str:
        """One line.

        >>> Standing(name="Perennial", installed="0.1.0", pending=("0016_alerts.sql",)).told()
        'Perennial 0.1.0: to apply: 0016_alerts.sql'
        """
        if self.left_out:
            return f"{self.name} {self.installed}: left out: {self.left_out}"
        return f"{self.name} {self.installed}: " + (
            f"to apply: {', '.join(self.pending)}" if self.pending else "up to date"
        )


class Tables(Protocol):
    """The tables of one system. ``apply`` may be killed and run again."""

    def look(self) -> Standing:
        """How they stand; changes nothing. StackError when that cannot be told."""
        ...

    def apply(self) -> None:
        """Bring them up to date. StackError with what to do next."""
        ...


@dataclass(frozen=True, kw_only=True)
class OwnTables:
    """Perennial's, with the owner's URL."""

    url: str = field(repr=False)

    def look(self) -> Standing:
        """See ``Tables.look``."""
        from perennial.storage.migrate import pending

        return Standing(name="Perennial", installed=version("perennial"), pending=tuple(pending(self.url)))

    def apply(self) -> None:
        """See ``Tables.apply``."""
        from perennial.storage.migrate import migrate

        migrate(self.url)


@dataclass(frozen=True, kw_only=True)
class CommandTables:
    """Another system's, through its own commands in processes of their own. Addresses travel in the environment alone.

    ``check`` ends with 0 when nothing is pending and with ``behind`` when something is. ``reach``, where there is one, must end with 0
    first: Airflow's check ends alike for old tables and for a database that is away.
    """

    name: str
    package: str
    check: Sequence[str]
    migrate: Sequence[str]
    reach: Sequence[str] = ()
    behind: int = _BEHIND
    environment: Mapping[str, str] | None = field(default=None, repr=False)
    left_out: str = ""

    def look(self) -> Standing:
        """See ``Tables.look``."""
        installed = version(self.package)
        if self.left_out:
            return Standing(name=self.name, installed=installed, left_out=self.left_out)
        away = self._run(self.reach, CHECK_SECONDS, quiet=True) if self.reach else 0
        code = away or self._run(self.check, CHECK_SECONDS, quiet=True)
        if away or code not in (0, self.behind):
            raise StackError(f"the tables of {self.name} cannot be looked at (exit code {code}); is its database up?")
        return Standing(name=self.name, installed=installed, pending=(f"{self.package} {installed}",) if code else ())

    def apply(self) -> None:
        """See ``Tables.apply``."""
        code = self._run(self.migrate, MIGRATION_SECONDS, quiet=False)
        if code:
            raise StackError(
                f"{self.name}: its migration ended with exit code {code}; its words are above, then run this again"
            )

    def _run(self, words: Sequence[str], seconds: float, *, quiet: bool) -> int:
        out = subprocess.DEVNULL if quiet else None
        try:
            return subprocess.run(
                list(words), env=dict(self.environment) if self.environment is not None else None, stdout=out, stderr=out,
                check=False, timeout=seconds,
            ).returncode  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise StackError(f"{self.name} did not answer within {seconds:.0f} s; run this again") from error


def systems(place: Home, owner_url: str) -> list[Tables]:
    """Ours, Airflow's and MLflow's: of the embedded stack when it runs, else those that the environment names."""
    if supervisor_runs(place):
        secrets, ports = read_or_make(place), Ports(**read_state(place).ports)
        airflow: Mapping[str, str] = environment.for_airflow(place, ports, secrets)
        mlflow: Mapping[str, str] = environment.for_mlflow(place, ports, secrets)
    else:
        airflow = mlflow = dict(os.environ)
    no_airflow = (
        "" if _names_airflow(airflow) else "set AIRFLOW__DATABASE__SQL_ALCHEMY_CONN, or run `airflow db migrate` there"
    )
    no_mlflow = (
        ""
        if mlflow.get("MLFLOW_BACKEND_STORE_URI")
        else "set MLFLOW_BACKEND_STORE_URI, or run `mlflow db upgrade` there"
    )
    python = (sys.executable, "-m")
    return [
        OwnTables(url=owner_url),
        CommandTables(
            name="Airflow", package="apache-airflow", check=(*python, "airflow", "db", "check-migrations", "-t", "1"), behind=1,
            reach=(*python, "airflow", "db", "check"), migrate=(*python, "airflow", "db", "migrate"), environment=airflow,
            left_out=no_airflow,
        ),
        CommandTables(
            name="MLflow", package="mlflow", check=(*python, PROVISION, "mlflow-check"),
            migrate=(*python, PROVISION, "mlflow"), environment=mlflow, left_out=no_mlflow,
        ),
    ]  # fmt: skip


def _names_airflow(values: Mapping[str, str]) -> bool:
    name = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"
    return any(values.get(key) for key in (name, f"{name}_CMD", f"{name}_SECRET"))


@contextmanager
def exclusively(owner_url: str) -> Iterator[Any]:
    """Hold the upgrade's lock on a connection that is yielded; StackError when somebody else does.

    A session lock of PostgreSQL: whoever is killed holds it no longer.
    """
    import psycopg

    try:
        connection = psycopg.connect(
            owner_url, autocommit=True, connect_timeout=10, application_name="perennial upgrade"
        )
    except psycopg.OperationalError as error:
        raise StackError(f"PostgreSQL is away ({type(error).__name__}); start it, then run this again") from error
    with connection:
        row = connection.execute(load("perennial.stack")["try_upgrade_lock"]).fetchone()
        if not row or not row[0]:
            raise StackError("another upgrade runs; wait for its end, then run this again")
        yield connection


def busy(connection: Any) -> list[str]:
    """Open rollouts and running trainings, one line each; none in a database that has no tables of ours yet."""
    queries = load("perennial.stack")
    row = connection.execute(queries["is_ours"]).fetchone()
    return [found[0] for found in connection.execute(queries["busy"])] if row and row[0] else []


def wait_until_idle(connection: Any, *, wait: bool, tell: Tell, seconds: float = WAIT_SECONDS) -> None:
    """Return once nothing trains and no rollout is open. StackError at once without ``wait``, and after ``seconds`` with it."""
    deadline = time.monotonic() + seconds
    told: list[str] = []
    while found := busy(connection):
        if not wait:
            raise StackError(
                f"not now: {'; '.join(found)}. Wait for it (`perennial upgrade --wait`), or decide it with `perennial rollout`"
            )
        if time.monotonic() > deadline:
            raise StackError(f"still not idle after {seconds:.0f} s: {'; '.join(found)}; nothing was changed")
        if found != told:
            tell(f"waiting: {'; '.join(found)}")
            told = found
        time.sleep(_LOOK_SECONDS)


def upgrade(
    all_tables: Sequence[Tables], owner_url: str, *, wait: bool, tell: Tell,
    applied: Callable[[Standing], None] = lambda standing: None,
) -> list[Standing]:  # fmt: skip
    """Apply what is pending, in order; returns what was applied. Nothing is changed while a rollout is open or a training runs.

    Killed and run again it goes on: what is applied is not pending any more. So ``applied`` is called after each system, not at the end.
    """
    with exclusively(owner_url) as connection:
        standings = [tables.look() for tables in all_tables]
        for standing in standings:
            tell(standing.told())
        due = [(tables, standing) for tables, standing in zip(all_tables, standings, strict=True) if standing.pending]
        if not due:
            return []
        wait_until_idle(connection, wait=wait, tell=tell)
        for tables, standing in due:
            tell(f"{standing.name}: applying")
            tables.apply()
            applied(standing)
        return [standing for _, standing in due]
