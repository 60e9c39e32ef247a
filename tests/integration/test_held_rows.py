"""A person releases or drops rows that two trainings refused."""

from __future__ import annotations

import psycopg
import pytest

from perennial.errors import StoreError
from perennial.ingest.aside import drop_held, release_held
from perennial.ingest.buffer import PostgresBuffer
from perennial.ingest.postgres_jobs import WITH_HELD_BATCH
from perennial.storage.database import Database as Pool
from tests.postgres_fixture import Database


def _held(database: Database, reason: str, count: int, *, state: str = "held", holdout: bool = False) -> None:
    with psycopg.connect(database.superuser) as connection:
        for number in range(count):
            connection.execute(
                "INSERT INTO perennial.examples (example_id, agent, task, state, uncertainty, importance, priority, source, content_digest,"
                " input_digest, created_at, refusals, reason, holdout)"
                " VALUES (gen_random_uuid(), 'scout', 't', %s, 0.5, 0.5, 0, 'example',"
                " sha256(%s::bytea), sha256(%s::bytea), now(), 2, %s, %s)",
                (state, f"{reason}{number}".encode(), f"{reason}{number}".encode(), reason, holdout),
            )


def _states(database: Database) -> dict[str, int]:
    with psycopg.connect(database.superuser) as connection:
        return dict(connection.execute("SELECT state::text, count(*) FROM perennial.examples GROUP BY 1").fetchall())


@pytest.mark.req("D9", "J110")
def test_released_rows_are_ready_again_and_rows_of_a_rare_label_keep_waiting(database: Database) -> None:
    _held(database, "held: a slice fell", 3)
    _held(database, "new_label_waiting", 2)
    assert release_held(Pool(database.app), "scout", "editor") == 3
    assert _states(database) == {"ready": 3, "held": 2}
    assert release_held(Pool(database.app), "scout", "editor") == 0


@pytest.mark.req("D9", "J110")
def test_dropped_rows_stay_in_the_books(database: Database) -> None:
    _held(database, "held: a slice fell", 3)
    assert drop_held(Pool(database.app), "scout", "editor") == 3
    assert _states(database) == {"evicted": 3}


@pytest.mark.req("J49", "J110")
def test_holdout_rows_follow_the_batch_that_they_came_in_with(database: Database) -> None:
    _held(database, "held: a slice fell", 3)
    _held(database, WITH_HELD_BATCH, 2, state="ready", holdout=True)
    _held(database, "", 4, state="ready", holdout=True)
    assert release_held(Pool(database.app), "scout", "editor") == 5
    assert _reasons(database) == {"released": 3, "": 6}
    with psycopg.connect(database.superuser) as connection:
        connection.execute("DELETE FROM perennial.examples")
    _held(database, WITH_HELD_BATCH, 2, state="ready", holdout=True)
    _held(database, "", 4, state="ready", holdout=True)
    assert drop_held(Pool(database.app), "scout", "editor") == 2
    assert _states(database) == {"evicted": 2, "ready": 4}


def _reasons(database: Database) -> dict[str, int]:
    with psycopg.connect(database.superuser) as connection:
        return dict(connection.execute("SELECT reason, count(*) FROM perennial.examples GROUP BY 1").fetchall())


@pytest.mark.req("D9", "J49")
def test_the_screening_knows_what_a_person_released(database: Database) -> None:
    _held(database, "source_cap", 2)
    buffer = PostgresBuffer(Pool(database.app))
    assert [(line.reason, line.rows) for line in buffer.held("scout")] == [("source_cap", 2)]
    with psycopg.connect(database.superuser) as connection:
        ids = [row[0] for row in connection.execute("SELECT example_id FROM perennial.examples")]
    assert [buffer.origins(ids)[identity].released for identity in ids] == [False, False]
    release_held(Pool(database.app), "scout", "editor")
    assert [buffer.origins(ids)[identity].released for identity in ids] == [True, True]


@pytest.mark.req("J110")
def test_a_decision_and_its_audit_entry_are_one_transaction(database: Database) -> None:
    _held(database, "held: a slice fell", 3)
    drop_held(Pool(database.app), "scout", "ana", "a test account")
    with psycopg.connect(database.app) as connection:
        entries = connection.execute("SELECT actor, action, agent, detail FROM perennial.audit").fetchall()
    assert entries == [("ana", "held_dropped", "scout", {"rows": 3, "reason": "a test account"})]
    _held(database, "rejected: no", 2)
    with pytest.raises(StoreError):  # an entry without an author is refused, and so is what it would have recorded
        release_held(Pool(database.app), "scout", " ")
    assert _states(database) == {"evicted": 3, "held": 2}
