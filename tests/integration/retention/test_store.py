"""One contract for both retention stores, and what only PostgreSQL can promise."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import psycopg
import pytest

from perennial.errors import NotConfigured, RegistryError, RolloutError
from perennial.retention.store import NEWEST, Left, PostgresRetention, Rows
from perennial.rollout.machine import Plan
from perennial.rollout.memory import MemoryRollouts
from perennial.rollout.store import PostgresRollouts
from perennial.storage.database import Database as Pool
from tests.integration.retention.conftest import EXAMPLE, Deployment
from tests.postgres_fixture import Database

NOW = datetime.now(UTC)
OLD, CUT, YOUNG = NOW - timedelta(days=40), NOW - timedelta(days=30), NOW - timedelta(days=2)
WHO = {"actor": "perennial", "reason": "old"}


def test_a_removal_begins_once_and_ends_and_is_told(deployment: Deployment) -> None:
    store = deployment.store
    assert store.removal("scout", "1.0.0") is None
    assert store.begin_removal("scout", "1.0.0", **WHO)
    assert store.begin_removal("scout", "1.0.0", **WHO)  # a repeat after a kill goes on
    (begun,) = store.removals("scout")
    assert store.unfinished("scout") == (begun,)
    assert [one.version for one in store.left("scout")] == ["1.0.3", "1.0.2", "1.0.1"]
    assert store.left("scout")[0] == Left(
        version="1.0.3", digest="digest-1.0.3", base_version="1.0.0", encoders=("e" * 64,)
    )  # fmt: skip
    assert (begun.version, begun.digest, begun.complete) == ("1.0.0", "digest-1.0.0", False)
    for _ in range(2):
        store.end_removal("scout", "1.0.0")
    assert store.unfinished("scout") == ()
    found = store.removal("scout", "1.0.0")
    assert found is not None
    assert found.complete
    assert "scout 1.0.0 were removed by retention on" in found.told()
    assert not store.begin_removal("scout", "9.9.9", **WHO)
    assert store.removals("analyst") == ()


def test_what_is_in_play_never_begins(deployment: Deployment) -> None:
    store = deployment.store
    deployment.serve("1.0.3")
    assert store.in_play("scout") == {"1.0.3": "champion"}
    assert not store.begin_removal("scout", "1.0.3", **WHO)
    assert store.removal("scout", "1.0.3") is None


def test_a_person_holds_a_version_and_lets_it_go(deployment: Deployment) -> None:
    store = deployment.store
    assert store.hold("scout", "1.0.1", held=True, actor="auditor", reason="audit of May")
    assert not store.hold("scout", "1.0.1", held=True, actor="auditor", reason="again")
    (one,) = store.holds("scout")
    assert (one.version, one.actor, one.reason) == ("1.0.1", "auditor", "audit of May")
    assert store.in_play("scout") == {"1.0.1": "held by a person"}
    assert not store.begin_removal("scout", "1.0.1", **WHO)
    assert store.hold("scout", "1.0.1", held=False, actor="auditor", reason="closed")
    assert not store.hold("scout", "1.0.1", held=False, actor="auditor", reason="again")
    assert store.holds("scout") == ()
    assert store.begin_removal("scout", "1.0.1", **WHO)
    with pytest.raises(RegistryError, match="removed by retention"):
        store.hold("scout", "1.0.1", held=True, actor="auditor", reason="too late")
    with pytest.raises(RegistryError, match="no version"):
        store.hold("scout", "9.9.9", held=True, actor="auditor", reason="none")


def test_jobs_are_told_apart(deployment: Deployment) -> None:
    done, fresh, running, unknown = uuid4(), uuid4(), uuid4(), uuid4()
    deployment.add_job(done, OLD)
    deployment.add_job(fresh, YOUNG)
    deployment.add_job(running, None)
    found = deployment.store.finished_jobs([done, fresh, running, unknown], CUT)
    assert found == {done: True, fresh: False, running: False}


@pytest.mark.req("K81")
def test_age_decides_and_batches_are_bounded(deployment: Deployment) -> None:
    store = deployment.store
    for rows in Rows:
        for at in (*[OLD] * 5, YOUNG):
            deployment.add_old(rows, at)
        assert store.count_old(rows, CUT) == 5, rows
        assert [store.remove_old(rows, CUT, 2) for _ in range(4)] == [2, 2, 1, 0], rows
        assert store.count_old(rows, CUT) == 0, rows
        assert store.count_old(rows, NOW + timedelta(days=1)) == 1, rows  # the young one is still there


# PostgreSQL alone


def _rollouts(deployment: Deployment) -> PostgresRollouts:
    return PostgresRollouts(deployment.extras["app"])


def _promote(rollouts: PostgresRollouts | MemoryRollouts, version: str) -> int:
    row = rollouts.open(agent="scout", version=version, plan=Plan(steps=(0.5, 1.0)), run_id=f"run-{version}")
    rollouts.promote_full(row.id, actor="test", reason="for the test")
    return row.id


def test_champion_predecessor_candidate_bake_and_open_jobs_are_in_play(on_postgres: Deployment) -> None:
    rollouts, store = _rollouts(on_postgres), on_postgres.store
    _promote(rollouts, "1.0.0")
    bake = _promote(rollouts, "1.0.1")
    rollouts.open(agent="scout", version="1.0.3", plan=Plan(steps=(0.5, 1.0)), run_id="r")
    assert set(store.in_play("scout")) == {"1.0.0", "1.0.1", "1.0.3"}
    for version in store.in_play("scout"):
        assert not store.begin_removal("scout", version, **WHO)
    rollouts.close(bake)
    assert "1.0.0" in store.in_play("scout")  # a person can still revert to it
    run = on_postgres.extras["run"]
    run(
        "INSERT INTO perennial.jobs (job_id, agent, run_id, status, reason, mode, dataset)"
        " VALUES (gen_random_uuid(), 'scout', 'j', 'training', 'request', 'online', '{\"champion\": \"1.0.2\"}')", {},
    )  # fmt: skip
    assert store.in_play("scout")["1.0.2"] == "an open job starts from it"
    run("UPDATE perennial.jobs SET status = 'failed'", {})
    assert "1.0.2" not in store.in_play("scout")
    assert store.begin_removal("scout", "1.0.2", **WHO)


@pytest.mark.req("J91")
@pytest.mark.parametrize("kind", ["memory", "postgres"])
def test_nothing_goes_back_to_a_version_whose_files_went(kind: str, request: pytest.FixtureRequest) -> None:
    rollouts: PostgresRollouts | MemoryRollouts
    if kind == "memory":
        rollouts = MemoryRollouts()
    else:
        deployment = request.getfixturevalue("on_postgres")
        rollouts = _rollouts(deployment)
    for version in ("1.0.0", "1.0.1", "1.0.2", "1.0.3"):
        _promote(rollouts, version)
    if isinstance(rollouts, MemoryRollouts):
        rollouts.removed.add(("scout", "1.0.1"))
    else:
        assert deployment.store.begin_removal("scout", "1.0.1", **WHO)
    with pytest.raises(RolloutError, match="never was the champion"):
        rollouts.rollback("scout", "1.0.1", actor="editor", reason="worse")
    rollouts.rollback("scout", "1.0.2", actor="editor", reason="worse")
    assert rollouts.previous_champion("scout") == "1.0.0"


def test_the_record_of_what_went_is_never_changed(on_postgres: Deployment, database: Database) -> None:
    on_postgres.store.begin_removal("scout", "1.0.0", **WHO)
    on_postgres.store.hold("scout", "1.0.1", held=True, actor="auditor", reason="audit")
    for role in ("app", "superuser"):
        for statement in (
            "DELETE FROM perennial.removed_bundles", "UPDATE perennial.removed_bundles SET reason = 'x'",
            "UPDATE perennial.retention_holds SET held = false", "DELETE FROM perennial.versions",
        ):  # fmt: skip
            with (
                psycopg.connect(getattr(database, role)) as connection,
                pytest.raises((psycopg.errors.InsufficientPrivilege, psycopg.errors.RaiseException)),
            ):
                connection.execute(statement)  # type: ignore[call-overload]


@pytest.mark.req("K81")
def test_purged_rows_keep_digest_and_ids_and_lose_their_texts(on_postgres: Deployment) -> None:
    run, store = on_postgres.extras["run"], on_postgres.store
    kept = {}
    for state in ("superseded", "evicted", "quarantined", "held", "trained", "ready"):
        (row,) = run(EXAMPLE, {"at": OLD, "state": state, "correction": False, "holdout": False})
        kept[state] = row["example_id"]
    assert store.remove_old(Rows.LEFTOVERS, CUT) == 2
    rows = {
        row["example_id"]: row
        for row in run("SELECT e.*, o.input_text AS original FROM perennial.examples e"
        " LEFT JOIN perennial.originals o USING (example_id)", {})
    }  # fmt: skip
    for state in ("superseded", "evicted"):
        gone = rows[kept[state]]
        assert gone["state"] == "purged"
        texts = ("input_text", "expected_output", "predicted_output", "user_feedback", "original")
        assert [gone[name] for name in texts] == [None] * 5
        assert (len(gone["content_digest"]), gone["source_url"]) == (32, "")
    for state in ("quarantined", "held", "trained", "ready"):
        stays = rows[kept[state]]
        assert (stays["state"], stays["input_text"], stays["original"]) == (state, "a text", "the original")


def test_trained_rows_that_are_corrections_or_holdout_stay(on_postgres: Deployment) -> None:
    run = on_postgres.extras["run"]
    for correction, holdout in ((True, False), (False, True), (False, False)):
        run(EXAMPLE, {"at": OLD, "state": "trained", "correction": correction, "holdout": holdout})
    assert on_postgres.store.count_old(Rows.TRAINED, CUT) == 1


def test_a_row_waits_for_the_verdict_on_what_overtook_it(on_postgres: Deployment) -> None:
    run, store = on_postgres.extras["run"], on_postgres.store
    (winner,) = run(EXAMPLE, {"at": YOUNG, "state": "raw", "correction": True, "holdout": False})
    run(EXAMPLE, {"at": OLD, "state": "superseded", "correction": False, "holdout": False})
    run("UPDATE perennial.examples SET superseded_by = %(id)s WHERE state = 'superseded'", {"id": winner["example_id"]})
    # refused or dropped in any of these, it gives back what it had overtaken
    for state in ("raw", "unlabelled", "ready", "claimed", "held", "quarantined"):
        run(f"UPDATE perennial.examples SET state = '{state}' WHERE example_id = %(id)s", {"id": winner["example_id"]})
        assert store.remove_old(Rows.LEFTOVERS, CUT) == 0, state
    run("UPDATE perennial.examples SET state = 'trained' WHERE example_id = %(id)s", {"id": winner["example_id"]})
    assert store.remove_old(Rows.LEFTOVERS, CUT) == 1


@pytest.mark.req("K39")
def test_statistics_that_a_bake_reads_are_not_touched(on_postgres: Deployment) -> None:
    rollouts, store = _rollouts(on_postgres), on_postgres.store
    for version in ("1.0.0", "1.0.1"):
        bake = _promote(rollouts, version)
    on_postgres.extras["run"]("UPDATE perennial.rollouts SET started_at = %(at)s", {"at": OLD - timedelta(days=9)})
    for rows in (Rows.PREDICTIONS, Rows.OUTCOMES):
        for version in ("1.0.0", "1.0.1", "1.0.2"):
            on_postgres.add_old(rows, OLD, version=version)
        assert store.count_old(rows, CUT) == 1  # 1.0.2 neither serves nor bakes
    on_postgres.add_old(Rows.RECENT_INPUTS, OLD)
    assert store.count_old(Rows.RECENT_INPUTS, CUT) == 0
    rollouts.close(bake)
    assert store.count_old(Rows.RECENT_INPUTS, CUT) == 1
    on_postgres.extras["run"](
        "INSERT INTO perennial.predictions (prediction_id, agent, task, version, arm, input_digest, at)"
        " SELECT gen_random_uuid(), 'scout', 'news', '1.0.1', 'champion', '', %(at)s FROM generate_series(1, %(n)s)",
        {"at": YOUNG, "n": NEWEST - 1},
    )
    assert store.count_old(Rows.PREDICTIONS, CUT) == 1  # the old one is among the newest 5000 of what serves
    on_postgres.add_old(Rows.PREDICTIONS, YOUNG, version="1.0.1")
    assert store.count_old(Rows.PREDICTIONS, CUT) == 2


def test_texts_are_the_admit_roles_to_purge(database: Database) -> None:
    pool = Pool(database.app)
    with pytest.raises(NotConfigured, match="PERENNIAL_ADMIT_DATABASE_URL"):
        PostgresRetention(pool, None).count_old(Rows.LEFTOVERS, CUT)
    pool.close()
