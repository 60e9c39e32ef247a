"""One contract for both audit logs."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from perennial.audit.log import AuditLog, PostgresAuditLog
from perennial.audit.memory import MemoryAuditLog
from perennial.audit.once import append_once
from perennial.storage.database import Database as Pool
from perennial.storage.queries import load
from tests.postgres_fixture import Database


@pytest.fixture(params=["memory", "postgres"])
def log(request: pytest.FixtureRequest) -> Iterator[AuditLog]:
    if request.param == "memory":
        yield MemoryAuditLog()
        return
    pool = Pool(request.getfixturevalue("database").app)
    yield PostgresAuditLog(pool)
    pool.close()


@pytest.mark.req("J34", "K14")
def test_decisions_are_kept_newest_first_and_by_agent(log: AuditLog) -> None:
    log.append(actor="editor", action="approved", agent="scout", subject="1.2.0", detail={"rows": 3, "names": ["a"]})
    log.append(actor="perennial", action="promoted", agent="analyst")
    log.append(actor="perennial", action="migrated")
    assert [entry.action for entry in log.entries()] == ["migrated", "promoted", "approved"]
    (entry,) = log.entries("scout")
    assert (entry.actor, entry.subject, entry.detail) == ("editor", "1.2.0", {"rows": 3, "names": ["a"]})
    assert entry.at.tzinfo is not None
    assert len(log.entries(limit=2)) == 2


@pytest.mark.parametrize("missing", [{"actor": ""}, {"action": "  "}])
def test_an_anonymous_decision_is_refused(log: AuditLog, missing: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="who did what"):
        log.append(**{"actor": "a", "action": "b", **missing})  # type: ignore[arg-type]
    assert log.entries() == ()


@pytest.mark.req("J34", "K14")
def test_what_is_written_is_found_however_much_was_written_since(log: AuditLog) -> None:
    log.append(
        actor="ana", action="rollback", agent="scout", subject="1.0.1", detail={"from": "1.0.3", "rollouts": [7, 8]}
    )
    for number in range(300):
        log.append(
            actor="perennial", action="reverted", agent="scout", subject=f"2.0.{number}", detail={"rollout": number}
        )

    def has(subject: str = "1.0.1", *actions: str, agent: str = "scout", **more: object) -> bool:
        return log.has(agent=agent, subject=subject, actions=actions or {"rollback"}, **more)  # type: ignore[arg-type]

    assert has()
    assert has("1.0.1", "promoted", "rollback", actor="ana", detail={"rollouts": [8]})
    assert has("2.0.5", "reverted", detail={"rollout": 5})
    assert not has("1.0.1", "promoted")
    assert not has("1.0")
    assert not has(agent="analyst")
    assert not has(actor="bo")
    assert not has(detail={"rollouts": [9]})
    assert not has(detail={"rollout": 7})
    assert not has("2.0.5", "reverted", detail={"rollout": 6})
    once = {"actor": "perennial", "action": "rollback", "agent": "scout", "subject": "1.0.1"}
    assert not append_once(log, **once)
    assert append_once(log, **{**once, "subject": "1.0.2"})


def test_subjects_that_begin_alike_are_told_apart_whatever_their_length(log: AuditLog) -> None:
    long = "".join(chr(0x4E00 + number) for number in range(5000))  # too long and too varied for an entry of an index
    log.append(actor="ana", action="approved", agent="scout", subject=long)
    assert log.has(agent="scout", subject=long, actions={"approved"})
    assert not log.has(agent="scout", subject=long[:-1], actions={"approved"})


def test_the_look_reads_the_entries_of_its_subject_alone(database: Database) -> None:
    with psycopg.connect(database.owner) as connection:
        connection.execute(
            "INSERT INTO perennial.audit (actor, action, agent, subject, detail)"
            " SELECT 'perennial', 'reverted', 'busy', '1.0.' || n, jsonb_build_object('rollout', n) FROM generate_series(1, 5000) AS n"
        )
        connection.execute("ANALYZE perennial.audit")
        values = {"actions": ["rollback", "reverted"], "actor": None, "detail": '{"rollout": 7}'}
        for agent, subject in (("busy", "1.0.7"), ("rare", "1.0.7")):  # the second has no entry at all
            plan = connection.execute(
                b"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + load("perennial.audit")["has"].encode(),  # type: ignore[arg-type]
                {**values, "agent": agent, "subject": subject},
            ).fetchone()
            assert plan is not None
            text = str(plan[0])
            assert "audit_by_subject" in text
            assert "Seq Scan" not in text
            read = plan[0][0]["Plan"]
            assert read["Shared Hit Blocks"] + read["Shared Read Blocks"] < 10
