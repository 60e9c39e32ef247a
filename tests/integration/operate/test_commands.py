"""What the commands of this page print and how they end, on a real database."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner

from perennial.cli import build
from perennial.ingest.buffer import PostgresBuffer
from perennial.ingest.job_log import JobLog
from perennial.registry.ledger import PostgresLedger
from perennial.stack.findings import Verdict, why_not_training
from perennial.storage.database import Database as Pool
from tests.contract.test_stores import record
from tests.integration.alerts.conftest import FLEET
from tests.postgres_fixture import Database
from tests.unit.registry.samples import PASSWORD, Keys


@pytest.fixture
def home(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home whose settings name the test's database, with one agent and a pair of keys."""
    place, fleet = tmp_path / "home", tmp_path / "fleet"
    fleet.mkdir()
    (fleet / "scout.py").write_text(FLEET)
    keys = Keys.make(place / "keys")
    for name in ("PERENNIAL_DATABASE_URL", "DATABASE_URL", "POSTGRES_HOST"):
        monkeypatch.delenv(name, raising=False)
    values = {
        "PERENNIAL_HOME": place, "PERENNIAL_FLEET_FOLDER": fleet, "PERENNIAL_DATABASE_URL": database.app,
        "PERENNIAL_OWNER_DATABASE_URL": database.owner, "PERENNIAL_SIGNING_KEY_FILE": keys.private,
        "PERENNIAL_SIGNING_KEY_PASSWORD": PASSWORD, "PERENNIAL_VERIFY_KEY_FILE": keys.public,
        "PERENNIAL_AIRFLOW_URL": "http://127.0.0.1:9",
    }  # fmt: skip
    for name, value in values.items():
        monkeypatch.setenv(name, str(value))
    pool = Pool(database.app)
    buffer, log = PostgresBuffer(pool), JobLog(pool)
    buffer.sync_agents([record()])
    job_id = buffer.request_training("scout")
    attempt = buffer.start_attempt(job_id, 3600.0)
    assert attempt is not None
    log.add_cost(job_id, attempt, {"train.news": 130.0})
    PostgresLedger(pool).add_gate_report(
        agent="scout",
        job_id=job_id,
        attempt=attempt,
        content_digest="d" * 64,
        action="hold",
        report={"summary": "news fell"},
    )
    with pool.connection() as connection:
        connection.execute("UPDATE perennial.jobs SET status = 'completed', lease_until = NULL")
    pool.close()
    return place


def run(*words: str, code: int = 0) -> str:
    done = CliRunner().invoke(build(), list(words))
    assert done.exit_code == code, f"{words}: {done.output} {done.exception!r}"
    return done.output


@pytest.mark.req("J107")
def test_alerts_are_listed_with_their_runbooks_and_end_with_1(home: Path) -> None:
    assert "nothing is open" in run("alerts")
    told = run("alerts", "--look", code=1)
    assert "hold" in told
    assert "docs/runbooks/hold.md" in told
    assert "docs/runbooks/budget.md" in told
    kinds = {one["kind"]: one["delivered_at"] for one in json.loads(run("alerts", "--json", code=1))}
    assert kinds == {"hold": None, "budget": None}  # nobody was told: there is no connection


@pytest.mark.req("J107")
def test_a_budget_shows_what_is_spent_and_what_waits(home: Path) -> None:
    told = run("budget")
    assert "scout: 130 s of 100 s within 24 hours, 130 s of no limit within 7 days" in told
    assert "waits: the training budget is spent" in told
    (row,) = json.loads(run("budget", "scout", "--json"))
    assert (row["day"], row["corrections_wait"]) == (130.0, "")


def test_the_doctor_says_that_the_budget_is_why_nothing_trains() -> None:
    row: dict[str, Any] = {
        "agent": "scout", "threshold": 50, "waiting": 60, "urgent": False, "held": 0, "job_id": None, "last_status": None
    }  # fmt: skip
    found = why_not_training(row, (), waits="the training budget is spent: 130 of 100 seconds within the last 24 hours")
    assert (found.verdict, found.detail[:28]) == (Verdict.NOTE, "the training budget is spent")
    below = why_not_training({**row, "waiting": 3}, (), waits="the training budget is spent")
    assert "threshold not reached" in below.detail


@pytest.mark.req("M74")
def test_keys_are_rotated_listed_and_revoked_by_command_with_a_reason(home: Path, database: Database) -> None:
    (first,) = json.loads(run("keys", "list", "--json"))
    run("keys", "rotate", code=2)
    run("keys", "rotate", "--reason", "yearly", "--actor", "ana")
    present, retired = json.loads(run("keys", "list", "--json"))
    assert retired["key"] == first["key"] != present["key"]
    run("keys", "revoke", first["key"], "--reason", "stolen", "--actor", "ana")
    assert json.loads(run("keys", "list", "--json"))[1]["counts_for"] == "nothing: revoked"
    with psycopg.connect(database.owner) as connection:
        rows = connection.execute("SELECT actor, action FROM perennial.audit ORDER BY id").fetchall()
    assert rows == [("ana", "key_rotated"), ("ana", "key_revoked")]


@pytest.mark.req("J110")
def test_a_backup_by_command_says_what_it_holds(home: Path, tmp_path: Path) -> None:
    told = run("backup", str(tmp_path / "monday"))
    assert "databases perennial" in told
    assert "no secret is in it" in told
    assert not list((tmp_path / "monday").rglob("*.pem"))
    assert (tmp_path / "monday" / "fleet" / "scout.py").is_file()
