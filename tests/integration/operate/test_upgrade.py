"""An upgrade applies what is pending in order, one at a time, never over an open rollout or a running training; killed, it goes on."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from typer.testing import CliRunner

from perennial.cli import build
from perennial.domain.job import JobRequest
from perennial.domain.words import JobStatus
from perennial.errors import StackError, StoreError
from perennial.ingest.buffer import PostgresBuffer
from perennial.rollout.machine import Plan
from perennial.rollout.store import PostgresRollouts
from perennial.stack import upgrade as flow
from perennial.stack.home import Home
from perennial.storage.database import Database as Pool
from perennial.storage.migrate import migrations, pending
from tests.contract.test_stores import record
from tests.postgres_fixture import Database, Server


@dataclass
class Tables:
    """The twin of another system's tables."""

    name: str
    journal: list[str]
    waiting: list[str] = field(default_factory=lambda: ["new"])
    fails: bool = False

    def look(self) -> flow.Standing:
        return flow.Standing(name=self.name, installed="1", pending=tuple(self.waiting))

    def apply(self) -> None:
        if self.fails:
            raise StackError(f"{self.name}: killed")
        self.journal.append(self.name)
        self.waiting.clear()


@pytest.fixture
def empty(postgres_server: Server) -> Iterator[Database]:
    name = "u_" + uuid4().hex[:12]
    with psycopg.connect(postgres_server.url("postgres"), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name} OWNER perennial_owner")  # type: ignore[arg-type]
    yield Database(postgres_server, name)
    with psycopg.connect(postgres_server.url("postgres"), autocommit=True) as admin:
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")  # type: ignore[arg-type]


def _upgrade(tables: list[flow.Tables], url: str, *, wait: bool = False) -> tuple[list[str], list[str]]:
    told: list[str] = []
    return [one.name for one in flow.upgrade(tables, url, wait=wait, tell=told.append)], told


@pytest.mark.req("M62")
def test_everything_in_order_from_an_empty_database_and_nothing_the_second_time(empty: Database) -> None:
    journal: list[str] = []
    tables: list[flow.Tables] = [flow.OwnTables(url=empty.owner), Tables("Airflow", journal), Tables("MLflow", journal)]
    assert pending(empty.owner) == [name for name, _ in migrations()]
    applied, told = _upgrade(tables, empty.owner)
    assert applied == ["Perennial", "Airflow", "MLflow"]
    assert journal == ["Airflow", "MLflow"]
    assert told[0].startswith("Perennial")  # it says what it will do before it does it
    assert "0001_fleet_and_buffer.sql" in told[0]
    assert pending(empty.owner) == []
    assert _upgrade(tables, empty.owner)[0] == []


def test_killed_in_between_it_goes_on_where_it_was(empty: Database) -> None:
    journal: list[str] = []
    airflow = Tables("Airflow", journal, fails=True)
    tables: list[flow.Tables] = [flow.OwnTables(url=empty.owner), airflow, Tables("MLflow", journal)]
    with pytest.raises(StackError, match="killed"):
        _upgrade(tables, empty.owner)
    assert (pending(empty.owner), journal) == ([], [])
    airflow.fails = False
    assert _upgrade(tables, empty.owner)[0] == ["Airflow", "MLflow"]


def test_two_upgrades_at_once_are_one(database: Database) -> None:
    with flow.exclusively(database.owner), pytest.raises(StackError, match="another upgrade runs"):
        _upgrade([Tables("Airflow", [])], database.owner)
    assert _upgrade([Tables("Airflow", [])], database.owner)[0] == ["Airflow"]


@pytest.mark.parametrize("what", ["rollout", "training"])
def test_it_refuses_while_a_rollout_is_open_or_a_training_runs(database: Database, what: str) -> None:
    pool = Pool(database.app)
    if what == "rollout":
        rollouts = PostgresRollouts(pool)
        row = rollouts.open(agent="scout", version="1.0.0", plan=Plan(steps=(0.5, 1.0)), run_id="r")
    else:
        buffer = PostgresBuffer(pool)
        buffer.sync_agents([record()])
        job_id = buffer.open_job(JobRequest(agent="scout", run_id="r"))
        attempt = buffer.start_attempt(job_id, 3600.0)
        assert attempt is not None
    journal: list[str] = []
    with pytest.raises(StackError, match="not now: scout"):
        _upgrade([Tables("Airflow", journal)], database.owner)
    assert journal == []
    assert _upgrade([Tables("Airflow", journal, waiting=[])], database.owner)[0] == []  # nothing to do is no refusal

    def end() -> None:
        if what == "rollout":
            rollouts.promote_full(row.id, actor="test", reason="well")  # a bake is no open rollout
        else:
            buffer.finish(job_id, attempt, JobStatus.CANCELLED)

    timer = threading.Timer(0.5, end)
    timer.start()
    applied, told = _upgrade([Tables("Airflow", journal)], database.owner, wait=True)
    timer.join()
    assert applied == ["Airflow"]
    assert any(line.startswith("waiting: scout") for line in told)
    pool.close()


def test_waiting_ends(database: Database) -> None:
    pool = Pool(database.app)
    PostgresRollouts(pool).open(agent="scout", version="1.0.0", plan=Plan(steps=(0.5, 1.0)), run_id="r")
    with flow.exclusively(database.owner) as connection, pytest.raises(StackError, match="still not idle"):
        flow.wait_until_idle(connection, wait=True, tell=lambda line: None, seconds=0.0)
    pool.close()


def test_a_migration_that_was_edited_is_refused(database: Database) -> None:
    with psycopg.connect(database.owner) as connection:
        connection.execute(
            "UPDATE public.perennial_migrations SET digest = 'x' WHERE name = '0001_fleet_and_buffer.sql'"
        )
    with pytest.raises(StoreError, match="0001"):
        pending(database.owner)


def _command(code: str, **more: object) -> flow.CommandTables:
    words = (sys.executable, "-c", code)
    return flow.CommandTables(name="MLflow", package="mlflow", check=words, migrate=words, **more)  # type: ignore[arg-type]


def test_another_systems_command_says_how_it_stands_by_its_exit_code() -> None:
    assert _command("").look().pending == ()
    assert _command("raise SystemExit(3)").look().pending[0].startswith("mlflow ")
    with pytest.raises(StackError, match="is its database up"):
        _command("raise SystemExit(9)").look()
    with pytest.raises(StackError, match="exit code 3"):
        _command("raise SystemExit(3)").apply()
    _command("import os; raise SystemExit(os.environ['X'] != 'y')", environment={**os.environ, "X": "y"}).apply()


def test_what_the_environment_does_not_name_is_left_out_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "MLFLOW_BACKEND_STORE_URI"):
        monkeypatch.delenv(name, raising=False)
    _, airflow, mlflow = flow.systems(Home(root=tmp_path), "postgresql://nowhere")
    assert "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN" in airflow.look().told()
    assert "MLFLOW_BACKEND_STORE_URI" in mlflow.look().told()


def test_the_command_checks_and_audits(empty: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERENNIAL_HOME", str(tmp_path))
    monkeypatch.setenv("PERENNIAL_OWNER_DATABASE_URL", empty.owner)
    monkeypatch.setenv("PERENNIAL_DATABASE_URL", empty.app)
    for name in ("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "MLFLOW_BACKEND_STORE_URI"):
        monkeypatch.delenv(name, raising=False)
    run = CliRunner()
    assert run.invoke(build(), ["upgrade", "--check"]).exit_code == 1
    assert pending(empty.owner)  # it only compared
    done = run.invoke(build(), ["upgrade", "--actor", "ana", "--reason", "0.2"])
    assert done.exit_code == 0, done.output
    assert "restart the processes" in done.output
    assert run.invoke(build(), ["upgrade", "--check"]).exit_code == 0
    with psycopg.connect(empty.owner) as connection:
        row = connection.execute(
            "SELECT actor, detail ->> 'why' FROM perennial.audit WHERE action = 'upgraded'"
        ).fetchone()
    assert row == ("ana", "0.2")


def test_what_was_applied_before_a_failure_is_in_the_audit(
    empty: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERENNIAL_HOME", str(tmp_path))
    monkeypatch.setenv("PERENNIAL_OWNER_DATABASE_URL", empty.owner)
    for name in ("PERENNIAL_DATABASE_URL", "DATABASE_URL", "POSTGRES_HOST"):
        monkeypatch.delenv(name, raising=False)  # the owner's URL is all that an upgrade needs
    airflow = Tables("Airflow", [], fails=True)
    monkeypatch.setattr(flow, "systems", lambda place, url: [flow.OwnTables(url=url), airflow])
    run = CliRunner()
    failed = run.invoke(build(), ["upgrade", "--actor", "ana", "--reason", "0.2"])
    assert isinstance(failed.exception, StackError)
    first = {"Perennial": [name for name, _ in migrations()]}
    assert _upgrades(empty) == [("ana", {"applied": first, "why": "0.2"})]
    airflow.fails = False
    assert run.invoke(build(), ["upgrade", "--actor", "bo", "--reason", "again"]).exit_code == 0
    assert _upgrades(empty)[1:] == [("bo", {"applied": {"Airflow": ["new"]}, "why": "again"})]


def _upgrades(database: Database) -> list[tuple[str, object]]:
    with psycopg.connect(database.owner) as connection:
        return connection.execute(
            "SELECT actor, detail FROM perennial.audit WHERE action = 'upgraded' ORDER BY id"
        ).fetchall()


def test_mlflows_tables_are_compared_by_their_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.store.db import utils
    from sqlalchemy import text

    from perennial.stack.provision import mlflow_tables

    address = f"sqlite:///{tmp_path}/m.db"
    monkeypatch.setenv("MLFLOW_BACKEND_STORE_URI", address)
    upgraded: list[str] = []
    monkeypatch.setattr(utils, "_upgrade_db", lambda engine: upgraded.append(str(engine.url)))
    assert mlflow_tables(check=True) == 0  # empty: MLflow's server makes them
    engine = utils.create_sqlalchemy_engine(address)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE experiments (x integer)"))
        connection.execute(text("CREATE TABLE alembic_version (version_num text)"))
        connection.execute(text("INSERT INTO alembic_version VALUES ('older')"))
    assert (mlflow_tables(check=True), upgraded) == (3, [])
    assert (mlflow_tables(check=False), upgraded) == (0, [address])
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE alembic_version SET version_num = :head"), {"head": utils._get_latest_schema_revision()}
        )
    assert mlflow_tables(check=True) == 0
    engine.dispose()


def test_a_database_that_is_away_is_not_taken_for_an_old_one() -> None:
    with pytest.raises(StackError, match="is its database up"):
        _command("raise SystemExit(3)", reach=(sys.executable, "-c", "raise SystemExit(1)")).look()
