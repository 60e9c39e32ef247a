"""The predecessor's own INSERT, the roles, and that Python and SQL compute the same digests."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from perennial.domain.example import Example
from perennial.ingest.buffer import PostgresBuffer
from perennial.ingest.digests import input_digest, plain_digest, share, text_digest
from perennial.storage.database import Database
from tests.integration.ingest.test_faults import TASK, admit_all, record
from tests.postgres_fixture import Database as Urls

# word for word from the source document
INSERT = """
        INSERT INTO training_examples
        (agent_name, task_type, input_text, expected_output, uncertainty_score,
         importance_score, source_url, timestamp, user_feedback, correction_priority)
        VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
"""
MOMENT = datetime(2025, 8, 1, 14, 2, tzinfo=UTC)


def values(**changed: Any) -> tuple[Any, ...]:
    row = {
        "agent_name": "scout", "task_type": TASK, "input_text": "Rates fell.", "expected_output": json.dumps("good"),
        "uncertainty_score": 0.123456789012, "importance_score": 0.75, "source_url": "http://news/1", "timestamp": MOMENT,
        "user_feedback": "note", "correction_priority": 0, **changed,
    }  # fmt: skip
    return tuple(row.values())


@pytest.fixture
def old_client(database: Urls) -> Iterator[psycopg.Connection[Any]]:
    PostgresBuffer(Database(database.app)).sync_agents([record()])
    with psycopg.connect(database.app, autocommit=True) as connection:
        yield connection


@pytest.mark.req("J78", "J79")
def test_an_insert_of_an_old_client_goes_through_the_same_rules(
    database: Urls, old_client: psycopg.Connection[Any]
) -> None:
    buffer = PostgresBuffer(Database(database.app))
    old_client.execute(INSERT, values())
    old_client.execute(INSERT, values())
    old_client.execute(INSERT, values(task_type="no such task"))
    old_client.execute(INSERT, values(input_text="no label yet", expected_output="null"))
    old_client.execute(INSERT, values(expected_output=json.dumps("bad"), correction_priority=2))
    assert buffer.counts("scout") == {
        (TASK, "superseded"): 1, ("no such task", "quarantined"): 1, (TASK, "unlabelled"): 1, (TASK, "raw"): 1
    }  # fmt: skip
    assert buffer.counters()["scout"] == {"duplicates": 1, "quarantined": 1}
    assert buffer.due("scout").corrections == 1
    same = Example(agent="scout", task=TASK, input_text="Rates fell.", expected_output="good", uncertainty=0.5)
    assert buffer.add(same).duplicates == 1  # the client and the old INSERT see the same content


@pytest.mark.req("J7", "J14", "J15", "J16", "J78")
def test_the_ten_columns_come_back_as_they_went_in(database: Urls, old_client: psycopg.Connection[Any]) -> None:
    old_client.execute(INSERT, values(expected_output=json.dumps({"entities": [[0, 5, "ORG"]]})))
    admit_all(database)
    row = old_client.execute(
        "SELECT agent_name, task_type, input_text, expected_output, uncertainty_score, importance_score, source_url,"
        ' "timestamp", user_feedback, correction_priority FROM training_examples'
    ).fetchone()
    assert row is not None
    assert json.loads(row[3]) == {"entities": [[0, 5, "ORG"]]}
    assert row[:3] + row[4:] == values()[:3] + values()[4:]


@pytest.mark.req("J8", "J12", "J13", "J17")
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("agent_name", "nobody"), ("agent_name", None), ("task_type", " "), ("input_text", ""), ("input_text", None),
        ("uncertainty_score", 7.5), ("uncertainty_score", float("nan")), ("uncertainty_score", None), ("importance_score", -3),
        ("correction_priority", 99), ("correction_priority", -1), ("source_url", "u" * 3000), ("user_feedback", "x" * 30_000),
        ("timestamp", "infinity"), ("timestamp", "9999-12-31 23:59:59+00"), ("timestamp", "0044-03-15 BC"),
    ],
)  # fmt: skip
def test_a_bad_insert_is_an_error_that_names_the_field(
    old_client: psycopg.Connection[Any], field: str, value: Any
) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=f"{field} "):
        old_client.execute(INSERT, values(**{field: value}))


@pytest.mark.parametrize(
    "text", ["Rates fell.", "  a\t\n B\x0b\x0c ", "ZÜRICH Ärger ß İ", "a\u00a0b\u2003c", "🎉\r\n x", "K"]
)
def test_python_and_sql_compute_the_same_digests(database: Urls, text: str) -> None:
    with psycopg.connect(database.app) as connection:
        row = connection.execute(
            "SELECT perennial.plain_digest(%(t)s), perennial.text_digest(%(t)s),"
            " perennial.input_digest('scout', 'topic', perennial.plain_digest(%(t)s)),"
            " perennial.share(perennial.plain_digest(%(t)s))",
            {"t": text},
        ).fetchone()
    assert row is not None
    assert row[0] == plain_digest(text)
    assert row[1] == text_digest(text)
    assert row[2] == input_digest("scout", "topic", plain_digest(text))
    assert row[3] == share(plain_digest(text))


@pytest.mark.req("K68")
@pytest.mark.parametrize(
    "statement",
    [
        "SELECT input_text FROM perennial.originals", "UPDATE perennial.originals SET input_text = ''",
        "DELETE FROM perennial.originals", "SELECT raw FROM perennial.rejected", "DELETE FROM perennial.examples",
        "TRUNCATE perennial.jobs", "DROP TABLE perennial.examples", "DELETE FROM perennial.outbox",
    ],
)  # fmt: skip
def test_the_app_role_reads_no_original_and_removes_nothing(database: Urls, statement: str) -> None:
    with psycopg.connect(database.app) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute(statement)  # type: ignore[arg-type]


@pytest.mark.req("K67", "K68")
def test_before_admission_no_text_stands_where_the_app_role_can_read(database: Urls) -> None:
    canary = "anna.karenina@example.org"
    buffer = PostgresBuffer(Database(database.app))
    buffer.sync_agents([record()])
    buffer.add(
        Example(
            agent="scout",
            task=TASK,
            input_text=canary,
            expected_output={"note": canary},
            predicted_output=[canary],
            user_feedback=canary,
            uncertainty=0.5,
        )
    )
    buffer.add(Example(agent="scout", task=TASK, input_text="x", expected_output=canary * 5, uncertainty=0.5))
    with psycopg.connect(database.app) as connection:
        for table in ("examples", "outbox", "counters", "jobs", "training_examples"):
            rows = connection.execute(f"SELECT * FROM perennial.{table}").fetchall()  # type: ignore[arg-type]
            assert canary not in repr(rows), table
