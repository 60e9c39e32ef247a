"""One contract for both ledgers, and what only PostgreSQL can promise."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import psycopg
import pytest

from perennial.errors import IncompleteManifest, RegistryError, StoreError, VersionExists
from perennial.registry.ledger import Ledger, PostgresLedger
from perennial.registry.manifest import IdSet, Manifest
from perennial.registry.memory import MemoryLedger
from perennial.registry.permission import counting
from perennial.registry.recipe import Role, RowMark
from perennial.registry.rows import LOST, LOST_TRIES, Approval
from perennial.storage.database import Database as Pool
from perennial.storage.migrate import migrations
from tests.postgres_fixture import Database
from tests.unit.registry.samples import components, manifest

PERSON = {"actor": "editor", "reason": "looked fine"}


@pytest.fixture(params=["memory", "postgres"])
def ledger(request: pytest.FixtureRequest) -> Iterator[Ledger]:
    if request.param == "memory":
        yield MemoryLedger()
        return
    pool = Pool(request.getfixturevalue("database").app, max_size=16)
    yield PostgresLedger(pool)
    pool.close()


@pytest.fixture
def sample(tmp_path: Path) -> Manifest:
    return replace(manifest(components(tmp_path / "candidate")), gate_report_digest="d" * 64)


def _record(ledger: Ledger, sample: Manifest, version: str, digest: str, **changes: object) -> Manifest:
    base = None if version == "1.0.0" else "1.0.0"
    made = replace(
        sample, version=version, base_version=base, order=ledger.reserve_order(), job_id=str(uuid4()), **changes
    )  # type: ignore[arg-type] # fmt: skip
    ledger.record_version(made, digest=digest, uri=f"mlflow-artifacts:/{digest}", mlflow_run_id="run")
    return made


@pytest.mark.req("K30", "K31")
def test_a_release_is_recorded_once_and_never_changed(ledger: Ledger, sample: Manifest) -> None:
    first = _record(ledger, sample, "1.0.0", "a")
    row = ledger.record_version(first, digest="a", uri="elsewhere", mlflow_run_id=None)  # a repeat
    assert (row.version, row.digest, row.order, row.uri) == ("1.0.0", "a", first.order, "mlflow-artifacts:/a")
    assert row.manifest == first.as_dict()
    assert row.ref.digest == "a"
    with pytest.raises(VersionExists, match="other bytes"):
        ledger.record_version(replace(first, order=ledger.reserve_order()), digest="b", uri="", mlflow_run_id=None)
    assert [release.digest for release in ledger.versions("scout")] == ["a"]
    assert ledger.version_of_job(first.job_id) == row
    assert ledger.version_of_job(UUID(first.job_id)) == row
    assert ledger.version_of_job(uuid4()) is None
    assert ledger.version("scout", "9.9.9") is None
    assert ledger.agents() == ("scout",)


@pytest.mark.req("K30")
def test_an_incomplete_record_is_not_published(ledger: Ledger, sample: Manifest) -> None:
    with pytest.raises(IncompleteManifest, match="code_digest"):
        ledger.record_version(replace(sample, code_digest=""), digest="a", uri="", mlflow_run_id=None)
    assert ledger.versions("scout") == ()


@pytest.mark.req("J110", "K40")
def test_the_move_that_was_made_for_a_reason_is_found_after_any_number_of_others(
    ledger: Ledger, sample: Manifest
) -> None:
    for version in ("1.0.0", "1.0.1"):
        _record(ledger, sample, version, version)
    ledger.move_alias("scout", "champion", "1.0.1", actor="ana", reason="complaints")
    ledger.move_alias("scout", "champion", "1.0.0", actor="perennial", reason="rollout 1 met its plan")
    edge = ledger.now()
    ledger.move_alias("scout", "champion", "1.0.1", actor="bo", reason="complaints")
    ledger.move_alias("scout", "candidate", "1.0.0", actor="bo", reason="complaints")
    for number in range(60):
        ledger.move_alias("scout", "champion", f"1.0.{number % 2}", actor="cy", reason=f"{number}")
    ledger.move_alias("scout", "candidate", None, actor="dee", reason="complaints")
    found = ledger.first_move("scout", reason="complaints", since=edge)
    assert found is not None
    assert (found.actor, found.alias, found.version) == ("bo", "champion", "1.0.1")
    assert ledger.first_move("scout", reason="complaints", since=found.moved_at) == found
    assert ledger.first_move("scout", reason="other", since=edge) is None
    assert ledger.first_move("analyst", reason="complaints", since=edge) is None
    assert ledger.first_move("scout", reason="complaints", since=ledger.now()) is None


@pytest.mark.req("K31")
def test_orders_only_grow(ledger: Ledger, sample: Manifest) -> None:
    early = ledger.reserve_order()
    late = _record(ledger, sample, "1.0.0", "a")
    assert late.order > early
    older = replace(sample, version="1.0.1", base_version="1.0.0", order=early)
    with pytest.raises(VersionExists, match="reserve a new order"):
        ledger.record_version(older, digest="b", uri="", mlflow_run_id=None)
    other_agent = replace(sample, agent="analyst", order=early)
    ledger.record_version(other_agent, digest="c", uri="", mlflow_run_id=None)
    with pytest.raises(VersionExists):
        ledger.record_version(replace(sample, agent="third", order=late.order), digest="d", uri="", mlflow_run_id=None)


@pytest.mark.req("K30")
def test_versions_follow_the_highest(ledger: Ledger, sample: Manifest) -> None:
    assert ledger.next_version("scout", "patch") == "1.0.0"
    for version, digest in (("1.0.0", "a"), ("1.9.0", "b"), ("1.10.0", "c")):
        _record(ledger, sample, version, digest)
    assert [ledger.next_version("scout", part) for part in ("patch", "minor", "major")] == ["1.10.1", "1.11.0", "2.0.0"]
    assert ledger.next_version("analyst", "major") == "1.0.0"
    assert [release.version for release in ledger.versions("scout")] == ["1.10.0", "1.9.0", "1.0.0"]
    with pytest.raises(ValueError, match="not one of"):
        ledger.next_version("scout", "huge")


@pytest.mark.req("K73")
def test_versions_never_collide_under_concurrency(ledger: Ledger, sample: Manifest) -> None:
    def release(number: int) -> str:
        for attempt in range(60):
            made = replace(
                sample, version=ledger.next_version("scout", "patch"), base_version="0.9.0",
                order=ledger.reserve_order(), job_id=str(uuid4()),
            )  # fmt: skip
            try:
                ledger.record_version(made, digest=f"{number}-{attempt}", uri="", mlflow_run_id=None)
            except VersionExists:
                continue
            return made.version
        raise AssertionError("never got a version")

    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(release, range(8)))
    assert sorted(done) == [f"1.0.{number}" for number in range(8)]
    orders = [row.order for row in ledger.versions("scout")]
    assert orders == sorted(orders, reverse=True)


@pytest.mark.req("K3", "S40")
def test_what_served_when_and_who_decided(ledger: Ledger, sample: Manifest) -> None:
    for version, digest in (("1.0.0", "a"), ("1.0.1", "b")):
        _record(ledger, sample, version, digest)
    before = datetime.now(UTC) - timedelta(seconds=1)
    moments = []
    for version, actor in (("1.0.0", "perennial"), ("1.0.1", "editor"), ("1.0.0", "watch")):
        assert ledger.move_alias("scout", "champion", version, actor=actor, reason=f"to {version}")
        time.sleep(0.01)
        moments.append(datetime.now(UTC))
        time.sleep(0.01)
    assert ledger.champion("scout") == "1.0.0"
    served = [ledger.served_at("scout", moment) for moment in (before, *moments)]
    assert [move and (move.version, move.actor, move.reason) for move in served] == [
        None, ("1.0.0", "perennial", "to 1.0.0"), ("1.0.1", "editor", "to 1.0.1"), ("1.0.0", "watch", "to 1.0.0"),
    ]  # fmt: skip
    assert ledger.served_at("analyst", moments[-1]) is None
    with pytest.raises(ValueError, match="no zone"):
        ledger.served_at("scout", datetime(2026, 1, 1))


def test_a_release_that_was_only_a_candidate_never_served(ledger: Ledger, sample: Manifest) -> None:
    _record(ledger, sample, "1.0.0", "a")
    ledger.move_alias("scout", "candidate", "1.0.0", actor="perennial", reason="its rollout begins")
    ledger.move_alias("scout", "candidate", None, actor="ana", reason="aborted")
    assert ledger.ever_served("scout") is False
    ledger.move_alias("scout", "champion", "1.0.0", actor="perennial", reason="it serves")
    ledger.move_alias("scout", "champion", None, actor="ana", reason="taken away")
    assert ledger.ever_served("scout") is True
    assert ledger.ever_served("analyst") is False


def test_promotions_since_a_moment_are_those_of_all_agents_after_it(ledger: Ledger, sample: Manifest) -> None:
    start = datetime.now(UTC) - timedelta(days=1)
    assert ledger.promoted_since(start) == frozenset()
    _record(ledger, sample, "1.0.0", "a")
    _record(ledger, sample, "1.0.1", "b")
    ledger.move_alias("scout", "candidate", "1.0.0", **PERSON)
    assert ledger.promoted_since(start) == frozenset()  # it only waits for traffic
    ledger.move_alias("scout", "champion", "1.0.0", **PERSON)
    assert ledger.promoted_since(start) == {"scout"}
    between = ledger.moves("scout", 1)[0].moved_at
    assert ledger.promoted_since(between) == frozenset()
    ledger.move_alias("scout", "champion", "1.0.1", **PERSON)
    assert ledger.promoted_since(between) == {"scout"}
    ledger.move_alias("scout", "champion", None, **PERSON)
    assert ledger.promoted_since(ledger.moves("scout", 2)[1].moved_at) == frozenset()  # taken away is no promotion


def test_aliases_move_only_when_something_changes(ledger: Ledger, sample: Manifest) -> None:
    _record(ledger, sample, "1.0.0", "a")
    assert not ledger.move_alias("scout", "candidate", None, **PERSON)
    assert ledger.move_alias("scout", "candidate", "1.0.0", **PERSON)
    assert not ledger.move_alias("scout", "candidate", "1.0.0", **PERSON)
    assert (ledger.candidate("scout"), ledger.champion("scout")) == ("1.0.0", None)
    assert ledger.move_alias("scout", "candidate", None, **PERSON)
    assert ledger.candidate("scout") is None
    assert [move.version for move in ledger.moves("scout")] == [None, "1.0.0"]
    assert len(ledger.moves("scout", limit=1)) == 1
    with pytest.raises(RegistryError, match=r"no version 7\.0\.0"):
        ledger.move_alias("scout", "champion", "7.0.0", **PERSON)
    with pytest.raises(ValueError, match="canary"):
        ledger.move_alias("scout", "canary", "1.0.0", **PERSON)


def test_ten_writers_of_one_alias_leave_one_row(ledger: Ledger, sample: Manifest) -> None:
    _record(ledger, sample, "1.0.0", "a")
    with ThreadPoolExecutor(10) as pool:
        moved = list(pool.map(lambda _: ledger.move_alias("scout", "champion", "1.0.0", **PERSON), range(10)))
    assert sorted(moved) == [False] * 9 + [True]
    assert len(ledger.moves("scout")) == 1


def test_only_the_newest_release_waits_for_traffic(ledger: Ledger, sample: Manifest) -> None:
    assert ledger.newest_unserved("scout") is None
    for version, digest in (("1.0.0", "a"), ("1.0.1", "b"), ("1.0.2", "c")):
        _record(ledger, sample, version, digest)
    waiting = ledger.newest_unserved("scout")
    assert waiting is not None
    assert waiting.version == "1.0.2"
    ledger.move_alias("scout", "champion", "1.0.2", **PERSON)
    assert ledger.newest_unserved("scout") is None  # 1.0.1 was passed over and must not follow 1.0.2


def test_a_verdict_is_stored_once_per_attempt(ledger: Ledger) -> None:
    job, other = uuid4(), uuid4()
    given = {"agent": "scout", "job_id": job, "attempt": 1, "content_digest": "x", "action": "hold"}
    assert ledger.add_gate_report(**given, report={"summary": "first"}) == {"summary": "first"}
    assert ledger.add_gate_report(**given, report={"summary": "second"}) == {"summary": "first"}
    for change in ({"action": "pass"}, {"content_digest": "y"}):
        with pytest.raises(RegistryError, match="never changed"):
            ledger.add_gate_report(**{**given, **change}, report={})  # type: ignore[arg-type]
    ledger.add_gate_report(**{**given, "attempt": 2, "action": "approve"}, report={"summary": "third"})  # type: ignore[arg-type]
    found = ledger.gate_report(job)
    assert found is not None
    assert (found.attempt, found.action, found.content_digest, found.report) == (
        2,
        "approve",
        "x",
        {"summary": "third"},
    )
    assert ledger.gate_report(other) is None
    assert [report.attempt for report in ledger.gate_reports("scout")] == [2, 1]


def _asking(ledger: Ledger, job: UUID, digest: str = "x", attempt: int = 1) -> None:
    ledger.add_gate_report(
        agent="scout", job_id=job, attempt=attempt, content_digest=digest, action="approve", report={"summary": "?"}
    )


@pytest.mark.req("K36", "K82")
def test_an_approval_covers_these_bytes_until_it_lapses_or_is_taken_back(ledger: Ledger) -> None:
    job = uuid4()
    _asking(ledger, job)

    def decide(decision: str, *, digest: str = "x", hours: float = 1.0, actor: str = "editor") -> None:
        ledger.add_approval(
            agent="scout", job_id=job, content_digest=digest, decision=decision, actor=actor, comment="ok", hours=hours
        )

    def live(of_job: UUID, digest: str) -> Approval | None:
        found = counting(ledger.decisions(job_id=of_job), content_digest=digest, at=ledger.now())
        return found[-1] if found else None

    assert live(job, "x") is None
    decide("approve")
    found = live(job, "x")
    assert found is not None
    assert (found.actor, found.comment) == ("editor", "ok")
    assert live(job, "other bytes") is None
    assert live(uuid4(), "x") is None
    decide("reject")
    assert live(job, "x") is None
    decide("approve")
    assert live(job, "x") is not None
    decide("approve", hours=-1.0)  # a later word that has lapsed counts, not the earlier one
    assert live(job, "x") is None
    with pytest.raises(RegistryError, match="name"):
        decide("approve", actor=" ")
    with pytest.raises(ValueError, match="maybe"):
        decide("maybe")


@pytest.mark.req("K36", "K82")
def test_a_decision_answers_a_report_that_asks_for_one(ledger: Ledger) -> None:
    job = uuid4()
    given = {"agent": "scout", "job_id": job, "content_digest": "x", "decision": "approve", "actor": "editor"}
    with pytest.raises(RegistryError, match="no gate report asks"):
        ledger.add_approval(**given)  # type: ignore[arg-type]
    ledger.add_gate_report(agent="scout", job_id=job, attempt=1, content_digest="x", action="pass", report={})
    with pytest.raises(RegistryError, match="no gate report asks"):
        ledger.add_approval(**given)  # type: ignore[arg-type]
    _asking(ledger, job, attempt=2)
    _asking(ledger, job, digest="y", attempt=3)
    for wrong in (
        {"content_digest": "z"},
        {"attempt": 1},
        {"attempt": 3},
        {"attempt": 4},
        {},
    ):  # {}: the latest is about y
        with pytest.raises(RegistryError, match="no gate report asks"):
            ledger.add_approval(**{**given, **wrong})  # type: ignore[arg-type]
    with pytest.raises(RegistryError, match="720 hours"):
        ledger.add_approval(**given, attempt=2, hours=721.0)  # type: ignore[arg-type]
    row = ledger.add_approval(
        **given, attempt=2, version="2.0.0", requested_by="ana", void="not one of the approvers", hours=720.0  # type: ignore[arg-type]
    )  # fmt: skip
    assert ledger.decisions(agent="scout") == ledger.decisions(job_id=job) == ledger.decisions() == (row,)
    assert (row.attempt, row.version, row.requested_by, row.void) == (2, "2.0.0", "ana", "not one of the approvers")
    assert abs((row.expires_at - row.created_at).total_seconds() - 720 * 3600) < 1
    assert row.created_at <= ledger.now()
    assert ledger.decisions(agent="analyst") == ()
    assert [(one.attempt, one.action) for one in ledger.judgements(job)] == [
        (1, "pass"), (2, "approve"), (3, "approve"),
    ]  # fmt: skip


def test_a_question_is_written_once_per_attempt(ledger: Ledger) -> None:
    job = uuid4()
    given = {"agent": "scout", "job_id": job, "attempt": 1, "content_digest": "x", "requested_by": ""}
    first = ledger.ask(**given, version="2.0.0", body_digest="b")  # type: ignore[arg-type]
    assert ledger.ask(**given, version="2.0.1", body_digest="c") == first  # type: ignore[arg-type]
    with pytest.raises(RegistryError, match="other bytes"):
        ledger.ask(**{**given, "content_digest": "y"}, version="2.0.0", body_digest="b")  # type: ignore[arg-type]
    second = ledger.ask(**{**given, "attempt": 2}, version="2.0.0", body_digest="b")  # type: ignore[arg-type]
    assert ledger.questions(job_id=job) == ledger.questions(agent="scout") == (second, first)
    assert ledger.questions(limit=1) == (second,)
    assert ledger.questions(agent="analyst") == ledger.questions(job_id=uuid4()) == ()


def test_validations_are_kept_per_task(ledger: Ledger) -> None:
    job = uuid4()
    given = {"agent": "scout", "job_id": job, "attempt": 1, "task": "news"}
    ledger.add_validation(**given, success=False, report={"rows": 3})  # type: ignore[arg-type]
    ledger.add_validation(**given, success=False, report={"rows": 4})  # type: ignore[arg-type]
    ledger.add_validation(**{**given, "task": "tone"}, success=True, report={"rows": 5})  # type: ignore[arg-type]
    with pytest.raises(RegistryError, match="never changed"):
        ledger.add_validation(**given, success=True, report={"rows": 3})  # type: ignore[arg-type]
    assert [(row.task, row.success, row.report) for row in ledger.validations(job)] == [
        ("news", False, {"rows": 3}), ("tone", True, {"rows": 5}),
    ]  # fmt: skip
    assert [row.task for row in ledger.recent_validations("scout")] == ["tone", "news"]
    assert [row.task for row in ledger.recent_validations("scout", 1)] == ["tone"]
    assert ledger.recent_validations("desk") == ()


def _rows(task: str, **roles: list[UUID]) -> dict[str, dict[Role, tuple[RowMark, ...]]]:
    return {
        task: {Role(role): tuple(RowMark(example_id=str(one), digest="") for one in ids) for role, ids in roles.items()}
    }


@pytest.mark.req("J87", "K57")
def test_an_example_finds_its_versions_and_a_version_its_examples(ledger: Ledger, sample: Manifest) -> None:
    first, second, third = (uuid4() for _ in range(3))
    _record(ledger, sample, "1.0.0", "a", rows=_rows("news", new=[second, first], holdout=[third]))
    again = _record(ledger, sample, "1.0.1", "b", rows=_rows("news", new=[third], replay=[first, second], holdout=[]))
    ledger.record_version(again, digest="b", uri="", mlflow_run_id=None)  # a repeat notes nothing twice
    assert [(use.version, use.task, use.role.value) for use in ledger.uses_of_example(first)] == [
        ("1.0.0", "news", "new"), ("1.0.1", "news", "replay"),
    ]  # fmt: skip
    assert [(use.version, use.role.value) for use in ledger.uses_of_example(third)] == [
        ("1.0.0", "holdout"), ("1.0.1", "new"),
    ]  # fmt: skip
    assert ledger.uses_of_example(uuid4()) == ()
    found = [(use.role.value, use.example_id) for use in ledger.examples_of_version("scout", "1.0.0")]
    assert found == [("holdout", third), ("new", second), ("new", first)]  # in training order
    release = ledger.version("scout", "1.0.1")
    assert release is not None
    assert {use.released_at for use in ledger.examples_of_version("scout", "1.0.1")} == {release.created_at}
    assert ledger.examples_of_version("scout", "7.0.0") == ()


@pytest.mark.req("K57")
def test_an_older_version_gets_its_examples_later_and_once(ledger: Ledger, sample: Manifest) -> None:
    one, other = uuid4(), uuid4()
    _record(ledger, sample, "1.0.0", "a")
    assert ledger.examples_of_version("scout", "1.0.0") == ()
    ledger.record_examples("scout", "1.0.0", {("news", Role.NEW): [one]})
    ledger.record_examples("scout", "1.0.0", {("news", Role.NEW): [other], ("news", Role.HOLDOUT): [other]})
    found = [(use.role.value, use.example_id) for use in ledger.examples_of_version("scout", "1.0.0")]
    assert found == [("holdout", other), ("new", one)]
    with pytest.raises(RegistryError, match=r"no version 7\.0\.0"):
        ledger.record_examples("scout", "7.0.0", {("news", Role.NEW): [one]})


# PostgreSQL alone


@pytest.mark.req("K57", "K31")
def test_examples_stand_or_fall_with_the_version_and_are_never_changed(database: Database, sample: Manifest) -> None:
    ledger, one = PostgresLedger(Pool(database.app)), uuid4()
    made = _record(ledger, sample, "1.0.0", "a", rows=_rows("news", new=[one]))
    late = replace(made, version="1.0.1", base_version="1.0.0", rows=_rows("news", new=[uuid4()]))
    with pytest.raises(VersionExists):  # its order is taken
        ledger.record_version(late, digest="b", uri="", mlflow_run_id=None)
    assert ledger.examples_of_version("scout", "1.0.1") == ()
    for url, error in (
        (database.app, psycopg.errors.InsufficientPrivilege), (database.owner, psycopg.errors.RaiseException),
    ):  # fmt: skip
        for statement in ("UPDATE perennial.version_examples SET ids = '{}'", "DELETE FROM perennial.version_examples"):
            with psycopg.connect(url) as connection, pytest.raises(error):
                connection.execute(statement)  # type: ignore[arg-type]


@pytest.mark.req("K57")
def test_versions_from_before_the_table_get_the_examples_that_the_buffer_can_prove(
    database: Database, sample: Manifest
) -> None:
    """The backfill of migration 8: ids whose digest is the signed one; a version whose rows do not add up gets none."""
    ledger, ids = PostgresLedger(Pool(database.app)), sorted(str(uuid4()) for _ in range(3))
    _record(ledger, sample, "1.0.0", "a", examples=IdSet.of(ids))
    _record(ledger, sample, "1.0.1", "b", examples=IdSet.of([*ids, "lost"]))
    with psycopg.connect(database.superuser) as connection:
        for version, part in (("1.0.0", ids), ("1.0.1", [str(uuid4())])):
            for identity in part:
                connection.execute(
                    "INSERT INTO perennial.examples (example_id, agent, task, state, uncertainty, importance, priority,"
                    " source, content_digest, input_digest, label_digest, created_at, model_version)"
                    " VALUES (%s, 'scout', 'news', 'trained', 0, 0, 0, 'example', sha256(convert_to(%s, 'UTF8')), '', '', now(), %s)",
                    (identity, identity, version),
                )
        text = dict(migrations())["0008_provenance.sql"]
        backfill = text[text.index("WITH known AS") : text.index("-- Append-only: what every change")]
        connection.execute(backfill)  # type: ignore[arg-type]
    assert sorted(str(use.example_id) for use in ledger.examples_of_version("scout", "1.0.0")) == ids
    assert ledger.examples_of_version("scout", "1.0.1") == ()


@pytest.mark.req("K31")
@pytest.mark.parametrize("role", ["app", "owner", "admit"])
def test_no_role_changes_or_deletes_a_row(role: str, database: Database, sample: Manifest) -> None:
    pool = Pool(database.app)
    ledger = PostgresLedger(pool)
    _record(ledger, sample, "1.0.0", "a")
    ledger.move_alias("scout", "champion", "1.0.0", **PERSON)
    job = uuid4()
    ledger.add_gate_report(agent="scout", job_id=job, attempt=1, content_digest="x", action="approve", report={})
    ledger.add_approval(agent="scout", job_id=job, content_digest="x", decision="approve", actor="editor")
    ledger.ask(
        agent="scout", job_id=job, attempt=1, content_digest="x", version="1.0.0", requested_by="", body_digest="b"
    )
    for statement in (
        "UPDATE perennial.versions SET digest = 'evil'",
        "DELETE FROM perennial.versions",
        "UPDATE perennial.alias_moves SET actor = 'nobody'",
        "DELETE FROM perennial.alias_moves",
        "UPDATE perennial.gate_reports SET action = 'pass'",
        "UPDATE perennial.approvals SET expires_at = 'infinity'",
        "DELETE FROM perennial.approvals",
        "UPDATE perennial.approval_questions SET version = '9.0.0'",
        "DELETE FROM perennial.approval_questions",
    ):
        with (
            psycopg.connect(getattr(database, role)) as connection,
            pytest.raises((psycopg.errors.InsufficientPrivilege, psycopg.errors.RaiseException)),
        ):
            connection.execute(statement)  # type: ignore[call-overload]
    assert [row.digest for row in ledger.versions("scout")] == ["a"]
    pool.close()


@pytest.mark.req("K36", "K82")
def test_sql_of_the_app_role_forges_no_approval_past_a_report(database: Database) -> None:
    pool = Pool(database.app)
    ledger, job, held = PostgresLedger(pool), uuid4(), uuid4()
    _asking(ledger, job)
    ledger.add_gate_report(agent="scout", job_id=held, attempt=1, content_digest="x", action="hold", report={})
    insert = (
        "INSERT INTO perennial.approvals (agent, job_id, attempt, content_digest, decision, actor, expires_at, created_at)"
        " VALUES (%s, %s, %s, %s, 'approve', %s, now() + %s::interval, now() - interval '9 days') RETURNING created_at"
    )
    good = ("scout", job, 1, "x", "mallory", "1 hour")
    refused = [
        ("scout", uuid4(), 1, "x", "mallory", "1 hour"),  # a job that no gate judged
        ("scout", held, 1, "x", "mallory", "1 hour"),  # one that the gate holds
        ("analyst", job, 1, "x", "mallory", "1 hour"),
        ("scout", job, 2, "x", "mallory", "1 hour"),
        ("scout", job, None, "x", "mallory", "1 hour"),
        ("scout", job, 1, "y", "mallory", "1 hour"),
        ("scout", job, 1, "x", " ", "1 hour"),
        ("scout", job, 1, "x", "mallory", "31 days"),
    ]
    for row in refused:
        with psycopg.connect(database.app) as connection, pytest.raises(psycopg.errors.CheckViolation):
            connection.execute(insert, row)
    with psycopg.connect(database.admit) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute(insert, good)
    with psycopg.connect(database.app) as connection:
        dated = connection.execute(insert, good).fetchone()
    assert dated is not None
    assert (datetime.now(UTC) - dated[0]).total_seconds() < 60  # by the database's clock, whatever was sent
    with psycopg.connect(database.app) as connection:
        back = connection.execute(
            "INSERT INTO perennial.gate_reports (agent, job_id, attempt, content_digest, action, report, created_at)"
            " VALUES ('scout', %s, 9, 'x', 'pass', '{}', now() - interval '9 days') RETURNING created_at", (job,)
        ).fetchone()  # fmt: skip
    assert back is not None
    assert (datetime.now(UTC) - back[0]).total_seconds() < 60
    pool.close()


@pytest.mark.req("K82")
def test_who_asked_for_a_job_is_never_changed(database: Database) -> None:
    with psycopg.connect(database.app) as connection:
        connection.execute(
            "INSERT INTO perennial.jobs (job_id, agent, run_id, reason, mode, requested_by)"
            " VALUES (gen_random_uuid(), 'scout', 'r', 'request', 'auto', 'ana')"
        )
        connection.execute("UPDATE perennial.jobs SET note = 'x', requested_by = 'ana'")
        with pytest.raises(psycopg.errors.RaiseException, match="never changed"):
            connection.execute("UPDATE perennial.jobs SET requested_by = 'bo'")


def test_a_version_with_a_rollout_row_has_met_traffic(database: Database, sample: Manifest) -> None:
    pool = Pool(database.app)
    ledger = PostgresLedger(pool)
    _record(ledger, sample, "1.0.0", "a")
    assert ledger.newest_unserved("scout") is not None
    with pool.connection() as connection:
        connection.execute(
            "INSERT INTO perennial.rollouts (agent, version, plan, state, run_id) VALUES ('scout', '1.0.0', '{}', 'pending', 'r')"
        )
    assert ledger.newest_unserved("scout") is None
    for number in range(1, 4):  # its run was gone before any traffic: it still waits, up to the third time
        _end_rollouts(pool, f"{LOST}, after 900 s")
        assert (ledger.newest_unserved("scout") is not None) == (number < LOST_TRIES)
        _end_rollouts(pool, "the last 5 answers failed")
        assert ledger.newest_unserved("scout") is None
        _end_rollouts(pool, LOST)
        with pool.connection() as connection:
            connection.execute(
                "INSERT INTO perennial.rollouts (agent, version, plan, state, run_id)"
                " VALUES ('scout', '1.0.0', '{}', 'reverted', %s)", (str(number),)
            )  # fmt: skip
    pool.close()


def _end_rollouts(pool: Pool, reason: str) -> None:
    with pool.connection() as connection:
        connection.execute("UPDATE perennial.rollouts SET state = 'reverted', reason = %s", (reason,))


def test_the_drivers_text_never_leaves_the_seam(database: Database, sample: Manifest) -> None:
    pool = Pool(database.app)
    broken = replace(sample, agent="sc\x00ut")
    with pytest.raises(StoreError) as refused:
        PostgresLedger(pool).record_version(broken, digest="a", uri="", mlflow_run_id=None)
    assert "sc" not in str(refused.value).replace("PostgreSQL", "")
    pool.close()
