"""Both stores of overrides keep one contract: PostgreSQL, and the twin in memory that other tests rely on."""

from __future__ import annotations

import time
from collections.abc import Iterator

import psycopg
import pytest

from perennial.errors import FleetError, StoreError
from perennial.fleet.memory_overrides import MemoryOverrides
from perennial.fleet.override_store import OverrideStore, PostgresOverrides
from perennial.storage.database import Database as Pool
from tests.postgres_fixture import Database

WHO = {"actor": "ana", "reason": "a new topic comes in"}


@pytest.fixture(params=["memory", "postgres"])
def store(request: pytest.FixtureRequest) -> Iterator[OverrideStore]:
    if request.param == "memory":
        yield MemoryOverrides()
        return
    pool = Pool(request.getfixturevalue("database").app)
    yield PostgresOverrides(pool)
    pool.close()


def test_the_newest_of_a_key_holds_and_others_are_their_agents_own(store: OverrideStore) -> None:
    store.set("scout", "update_threshold", 20, seconds=60, **WHO)
    store.set("scout", "gates.k_folds_always", True, seconds=60, **WHO)
    last = store.set("scout", "update_threshold", 30, seconds=60, **WHO)
    store.set("critic", "update_threshold", 5, seconds=60, **WHO)
    assert [(one.key, one.value) for one in store.active("scout")] == [
        ("gates.k_folds_always", True),
        ("update_threshold", 30),
    ]
    assert store.active("scout")[1] == last
    assert [one.agent for one in store.active()] == ["critic", "scout", "scout"]
    assert (last.actor, last.reason) == ("ana", "a new topic comes in")
    assert 59 <= (last.until - last.set_at).total_seconds() <= 61
    assert [row["value"] for row in store.history("scout")] == [30, True, 20]
    assert len(store.history("scout", limit=2)) == 2


def test_it_ends_by_the_stores_clock_and_does_not_let_an_older_one_hold_again(store: OverrideStore) -> None:
    store.set("scout", "update_threshold", 20, seconds=3600, **WHO)
    store.set("scout", "update_threshold", 30, seconds=0.05, **WHO)
    time.sleep(0.1)
    assert store.active() == ()


def test_unset_ends_it_once(store: OverrideStore) -> None:
    store.set("scout", "update_threshold", 20, seconds=60, **WHO)
    assert store.unset("scout", "update_threshold", actor="bo", reason="done") is True
    assert store.unset("scout", "update_threshold", actor="bo", reason="done") is False
    assert store.unset("scout", "max_buffer_size", actor="bo", reason="done") is False
    assert store.active() == ()
    assert [(row["value"], row["actor"]) for row in store.history("scout")] == [(None, "bo"), (20, "ana")]


@pytest.mark.parametrize(
    ("seconds", "actor", "reason"), [(0, "ana", "why"), (31 * 86_400, "ana", "why"), (60, " ", "why"), (60, "ana", "")]
)
def test_nameless_baseless_and_endless_ones_are_refused(
    store: OverrideStore, seconds: float, actor: str, reason: str
) -> None:
    with pytest.raises(FleetError):
        store.set("scout", "update_threshold", 20, seconds=seconds, actor=actor, reason=reason)
    assert store.history("scout") == ()


def test_the_table_takes_no_change_and_no_date_of_its_own(database: Database) -> None:
    pool = Pool(database.app)
    made = PostgresOverrides(pool).set("scout", "update_threshold", 20, seconds=60, **WHO)
    with pytest.raises(StoreError), pool.connection() as connection:
        connection.execute("UPDATE perennial.agent_overrides SET until = until + interval '1 day'")
    with pool.connection() as connection:
        connection.execute(
            "INSERT INTO perennial.agent_overrides (agent, key, value, actor, reason, set_at, until) "
            "VALUES ('a', 'k', '1', 'x', 'y', now() - interval '1 year', now() + interval '1 day')"
        )
    assert PostgresOverrides(pool).active("a")[0].set_at >= made.set_at
    pool.close()
    with psycopg.connect(database.owner) as owner, pytest.raises(psycopg.errors.RaiseException):
        owner.execute("DELETE FROM perennial.agent_overrides")
