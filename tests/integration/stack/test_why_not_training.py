"""The statement behind `perennial doctor` tells the causes apart on real tables."""

from __future__ import annotations

import json
import uuid

import psycopg
import pytest
from psycopg.rows import dict_row

from perennial.stack.findings import Finding, why_not_training
from perennial.storage.queries import load
from tests.postgres_fixture import Database

pytestmark = pytest.mark.req("J107")


def finding(database: Database) -> Finding:
    with psycopg.connect(database.app, row_factory=dict_row) as link:
        (row,) = link.execute(load("perennial.stack")["why_not_training"]).fetchall()  # type: ignore[arg-type]
    return why_not_training(row, ())


def add(link: psycopg.Connection, count: int, *, state: str = "ready", priority: int = 0) -> None:
    for _ in range(count):
        link.execute(
            "INSERT INTO perennial.examples (example_id, agent, task, state, input_text, expected_output, uncertainty, importance,"
            " priority, source, content_digest, input_digest, created_at)"
            " VALUES (%s, 'scout', 'sentiment', %s, 'x', '\"positive\"', 0.5, 0.5, %s, 'test', %s, %s, now())",
            (uuid.uuid4(), state, priority, uuid.uuid4().bytes, uuid.uuid4().bytes),
        )


@pytest.fixture
def link(database: Database) -> psycopg.Connection:
    with psycopg.connect(database.owner, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO perennial.agents (agent, record, file_digest, update_threshold, max_buffer_size, holdout_share)"
            " VALUES ('scout', %s, '', 5, 100, 0)",
            (json.dumps({"update_threshold": 5}),),
        )
        yield connection


def job(link: psycopg.Connection, status: str, lease: str) -> None:
    link.execute(
        "INSERT INTO perennial.jobs (job_id, agent, run_id, status, reason, mode, lease_until, started_at, completed_at, note)"
        f" VALUES (gen_random_uuid(), 'scout', 'run-7', %s, 'threshold', 'online', now() + interval '{lease}', now(), now(), 'why')",
        (status,),
    )


def test_threshold_not_reached(link: psycopg.Connection, database: Database) -> None:
    add(link, 3)
    add(link, 2, state="held")
    said = finding(database).detail
    assert said.startswith("threshold not reached: 3 of 5")
    assert "2 more are held" in said


def test_threshold_reached_and_correction_waiting(link: psycopg.Connection, database: Database) -> None:
    add(link, 7)
    assert finding(database).detail.startswith("due: 5 examples wait")  # the probe stops at the threshold
    add(link, 1, priority=2)
    assert finding(database).detail.startswith("due: a correction waits")


def test_lock_held_by_a_living_and_by_a_dead_job(link: psycopg.Connection, database: Database) -> None:
    add(link, 7)
    job(link, "training", "1 minute")
    assert "lock held by job" in finding(database).detail
    assert "run run-7" in finding(database).detail
    link.execute("UPDATE perennial.jobs SET lease_until = now() - interval '1 second'")
    assert "its lease ran out" in finding(database).detail


def test_rest_after_a_failed_training(link: psycopg.Connection, database: Database) -> None:
    add(link, 7)
    job(link, "failed", "0 seconds")
    assert finding(database).detail == "5 examples wait, but the last training failed: why"
