"""One contract for the chain of both audit logs, and what only PostgreSQL can show."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from perennial.audit.chain import content_digest, entry, seal_hash
from perennial.audit.log import AuditLog, PostgresAuditLog
from perennial.audit.memory import MemoryAuditLog
from perennial.audit.verification import Report, verify
from perennial.storage.database import Database as Pool
from perennial.storage.migrate import migrations
from tests.postgres_fixture import Database

pytestmark = pytest.mark.req("K70")


@pytest.fixture(params=["memory", "postgres"])
def log(request: pytest.FixtureRequest) -> Iterator[AuditLog]:
    if request.param == "memory":
        yield MemoryAuditLog()
        return
    pool = Pool(request.getfixturevalue("database").app)
    yield PostgresAuditLog(pool)
    pool.close()


def decide(log: AuditLog, count: int) -> None:
    for number in range(count):
        log.append(actor="editor", action="approved", agent="scout", subject=f"1.{number}.0", detail={"rows": number})


def report(log: AuditLog) -> Report:
    heads = [(seal.batch, seal.hash) for seal in log.seals(0)]  # before the view, as heads that were kept
    with log.chain() as chain:
        return verify(chain, heads)


def test_rows_are_sealed_in_batches_that_follow_each_other(log: AuditLog) -> None:
    assert log.seal() is None
    assert log.seals(0) == ()
    assert report(log).sound
    decide(log, 7)
    found = report(log)
    assert (found.sound, found.rows, found.batches, found.unsealed) == (True, 7, 0, 7)
    made = [log.seal(most=3) for _ in range(4)]
    assert made[3] is None
    assert [(seal.batch, seal.count, seal.total, seal.first_id) for seal in made if seal] == [
        (1, 3, 3, 1), (2, 3, 6, 4), (3, 1, 7, 7),
    ]  # fmt: skip
    seals = log.seals(0)
    assert list(seals) == made[:3]
    assert [seal.hash for seal in seals] == [seal_hash(seal) for seal in seals]
    assert [seal.previous for seal in seals] == [bytes(32), seals[0].hash, seals[1].hash]
    assert log.seals(1, limit=1) == (seals[1],)
    decide(log, 1)
    found = report(log)
    assert (found.sound, found.rows, found.batches, found.unsealed, found.head, found.compared) == (
        True, 8, 3, 1, seals[2], 3,
    )  # fmt: skip


def test_the_view_stays_as_it_was_when_it_was_opened(log: AuditLog) -> None:
    decide(log, 4)
    log.seal()
    with log.chain() as chain:
        decide(log, 3)
        log.seal()
        found = verify(chain)
    assert (found.sound, found.rows, found.batches) == (True, 4, 1)


def test_texts_of_any_kind_are_hashed_alike_here_and_in_the_server(database: Database) -> None:
    """The digest that SQL writes, the one from the bytes that COPY sends, and the one from the values are one."""
    pool = Pool(database.app)
    log, dice = PostgresAuditLog(pool), random.Random(3)
    texts = ["", "ä€𝄞", 'a"\\\n\t', "x" * 3000, "\x7f é"]
    for number in range(60):
        detail: dict[str, Any] = {
            dice.choice(texts): dice.choice(
                [1, -0.5, 1e-7, 1e22, 123456789012345678901, True, None, [], {"ß": [texts]}]
            )
            for _ in range(number % 5)
        }
        log.append(
            actor="a" + dice.choice(texts), action="b" + dice.choice(texts), agent=dice.choice(texts), subject=dice.choice(texts),
            detail=detail,
        )  # fmt: skip
    with psycopg.connect(database.app) as connection:
        rows = connection.execute(
            "SELECT a.id, a.at, actor, action, agent, subject, detail::text, content FROM perennial.audit a "
            "JOIN perennial.audit_unsealed u ON u.id = a.id AND u.at = a.at ORDER BY id"
        ).fetchall()
    with log.chain() as chain:
        streamed = list(chain.rows)
    assert len(rows) == 60
    for row, one in zip(rows, streamed, strict=True):
        row_id, at, *values, content = row
        assert content_digest(*values) == content
        assert entry(row_id, at, content) == one
    pool.close()


def test_twins_print_json_alike(database: Database) -> None:
    from perennial.audit.chain import json_text

    value = {"why": "it fell", "b": {"ää": 1, "z": [True, None, {"k": -3.5}]}, "aa": 'quo"te\\ \n \x01', "Z": 10**18}
    with psycopg.connect(database.app) as connection:
        printed = connection.execute("SELECT %s::jsonb::text", (json_text(value),)).fetchone()
    assert printed == (json_text(value),)


def test_no_column_is_left_out_of_the_hash(database: Database) -> None:
    """A column that a later migration adds would be outside every hash: this fails until the hashing knows it."""
    with psycopg.connect(database.owner) as connection:
        connection.execute("ALTER TABLE perennial.audit ADD COLUMN extra text NOT NULL DEFAULT ''")
    pool = Pool(database.app)
    found = report(PostgresAuditLog(pool))
    assert [finding.text.split(" has ")[0] for finding in found.findings] == ["table perennial.audit"]
    pool.close()


def test_a_row_that_commits_late_is_neither_lost_nor_an_alarm(database: Database) -> None:
    pool = Pool(database.app)
    log = PostgresAuditLog(pool)
    append = "SELECT perennial.append_audit('slow', 'b', '', '', '{}')"
    with psycopg.connect(database.app) as slow, psycopg.connect(database.app) as lost:
        assert slow.execute(append).fetchone() == (1,)
        assert lost.execute(append).fetchone() == (2,)
        decide(log, 3)
        first = log.seal()
        assert first is not None
        assert (first.first_id, first.last_id) == (3, 5)
        assert report(log).sound
        lost.rollback()
        slow.commit()
    assert report(log).sound
    assert report(log).unsealed == 1
    second = log.seal()
    assert second is not None
    assert (second.first_id, second.last_id, second.total) == (1, 1, 4)
    found = report(log)
    assert (found.sound, found.rows, found.unsealed) == (True, 4, 0)
    pool.close()


def test_many_writers_and_many_sealers_make_one_chain_without_a_gap(database: Database) -> None:
    pool, stop = Pool(database.app, max_size=10), threading.Event()
    log = PostgresAuditLog(pool)

    def sealer() -> None:
        while not stop.is_set():
            log.seal(most=7)
            stop.wait(0.005)

    writers = [threading.Thread(target=decide, args=(log, 40)) for _ in range(4)]
    sealers = [threading.Thread(target=sealer) for _ in range(3)]
    for thread in writers + sealers:
        thread.start()
    try:
        for thread in writers:
            thread.join()
        assert report(log).sound
    finally:
        stop.set()
        for thread in sealers:
            thread.join()
    while log.seal() is not None:
        pass
    found = report(log)
    assert (found.sound, found.rows, found.unsealed) == (True, 160, 0)
    assert found.head is not None
    assert found.head.total == 160
    pool.close()


def test_a_sealer_that_is_killed_leaves_a_whole_chain(database: Database) -> None:
    pool = Pool(database.app)
    log = PostgresAuditLog(pool)
    decide(log, 4)
    with psycopg.connect(database.app) as killed:
        assert killed.execute("SELECT batch FROM perennial.seal_audit()").fetchone() == (1,)
        assert log.seal() is None  # one at a time
        with psycopg.connect(database.superuser, autocommit=True) as admin:
            admin.execute("SELECT pg_terminate_backend(%s)", (killed.info.backend_pid,))
        with pytest.raises(psycopg.OperationalError):
            killed.execute("SELECT 1")
    found = report(log)
    assert (found.sound, found.batches, found.unsealed) == (True, 0, 4)
    sealed = log.seal()
    assert sealed is not None
    assert (sealed.batch, sealed.count) == (1, 4)
    pool.close()


def test_rows_of_before_the_chain_are_sealed_by_the_migration(database: Database) -> None:
    """The chain is taken away and an old row written as before it; migration 7 then seals it. Later migrations do not touch the audit."""
    text = next(text for name, text in migrations() if name.startswith("0007"))
    with psycopg.connect(database.owner) as connection:
        for statement in (
            "DROP TABLE perennial.audit_batches, perennial.audit_unsealed", "DROP FUNCTION perennial.seal_audit",
            "DROP FUNCTION perennial.append_audit", "DROP FUNCTION perennial.audit_content", "DROP FUNCTION perennial.audit_field",
            "GRANT SELECT, INSERT ON perennial.audit TO perennial_app, perennial_admit",
        ):  # fmt: skip
            connection.execute(statement)
    with psycopg.connect(database.app) as connection:
        connection.execute(
            "INSERT INTO perennial.audit (actor, action, agent, detail) "
            "SELECT 'editor', 'approved', 'scout', jsonb_build_object('n', n) FROM generate_series(1, 5000) n"
        )
    with psycopg.connect(database.owner) as connection:
        connection.execute(text)  # type: ignore[arg-type]
    pool = Pool(database.app)
    log = PostgresAuditLog(pool)
    decide(log, 1)
    found = report(log)
    assert (found.sound, found.rows, found.batches, found.unsealed) == (True, 5001, 2, 1)
    pool.close()
