"""One contract for both audit logs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from perennial.audit.log import AuditLog, MemoryAuditLog, PostgresAuditLog
from perennial.storage.database import Database as Pool


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
