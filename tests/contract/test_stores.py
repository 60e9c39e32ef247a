"""The laws of the buffer, met by both of its forms: in memory and on PostgreSQL."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from perennial.domain.example import Example
from perennial.domain.job import JobRequest
from perennial.domain.words import JSON, JobStatus, Priority, Reason, Source
from perennial.errors import GuardUnavailable, StaleClaim, StoreError, UnknownAgent
from perennial.ingest.admit import Admission, AdmitOutcome, Admitted, Examine, Refused
from perennial.ingest.buffer import BufferStore, PostgresBuffer
from perennial.ingest.memory import MemoryAdmission, MemoryBuffer
from perennial.ingest.results import Offset, Rejection
from perennial.storage.database import Database
from perennial.storage.queries import load
from tests.postgres_fixture import Database as TestDatabase

TASK = "sentiment"
T0 = datetime(2025, 8, 1, 14, 2, tzinfo=UTC)


def record(
    agent: str = "scout", *, threshold: int = 50, most: int = 1000, holdout: float = 0.0, own: dict[str, Any] | None = None,
    tasks: tuple[str, ...] = (TASK,),
) -> dict[str, Any]:  # fmt: skip
    return {
        "agent": agent, "record": {"name": agent, **(own or {})}, "file_digest": "0" * 64, "update_threshold": threshold,
        "max_buffer_size": most, "holdout_share": holdout,
        "tasks": [
            {"task": task, "kind": "classification", "labels": None, "max_length": 20_000, "aliases": [f"{task}_analysis"]}
            for task in tasks
        ],
    }  # fmt: skip


def row(text: str, label: JSON = "good", **fields: Any) -> Example:
    made = {"agent": "scout", "task": TASK, "uncertainty": 0.5, "created_at": T0, **fields}
    return Example(input_text=text, expected_output=label, **made)


def correction(text: str, label: JSON, priority: int = 2, **fields: Any) -> Example:
    return row(
        text, label, source=Source.CORRECTION, priority=Priority(priority), importance=1.0, uncertainty=1.0, **fields
    )


def accept(task: str, text: str, expected: JSON, feedback: str | None) -> Admitted | Refused:
    return Admitted(text=text.replace("secret", "<SECRET>"), expected_output=expected, feedback=feedback, version="t1")


@dataclass
class Store:
    """One form of the buffer with its admission and a way to let leases run out."""

    buffer: BufferStore
    admit: Callable[..., AdmitOutcome]
    expire: Callable[[UUID], None]
    waiting: Callable[[list[str]], list[str]]  # the agents that an admission would change
    rows: Callable[[], dict[str, tuple[str, UUID | None]]]  # state and superseded_by, by example id
    announced: Callable[[], list[dict[str, Any]]]

    def train(self, run: str = "run1", version: str = "1.0.0", limit: int = 1000) -> list[str]:
        """Admit, claim and settle everything; returns the texts in the order of the claim."""
        self.admit()
        job_id, attempt = self.start(run)
        claimed = self.buffer.claim("scout", job_id, attempt, limit)
        self.buffer.settle_trained(job_id, attempt, version)
        self.buffer.finish(job_id, attempt, JobStatus.COMPLETED, note="done", version=version)
        return [one.text for one in claimed]

    def start(self, run: str = "run1", agent: str = "scout", lease: float = 60.0) -> tuple[UUID, int]:
        job_id = self.buffer.open_job(JobRequest(agent=agent, run_id=run))
        attempt = self.buffer.start_attempt(job_id, lease)
        assert attempt is not None
        return job_id, attempt

    def state(self, example: Example) -> str:
        return self.rows()[str(example.example_id)][0]


def _memory() -> Store:
    buffer = MemoryBuffer()

    def expire(job_id: UUID) -> None:
        buffer.state.change_job(job_id, lease_until=datetime.now(UTC) - timedelta(seconds=1))

    def rows() -> dict[str, tuple[str, UUID | None]]:
        return {str(one.example.example_id): (one.state.value, one.superseded_by) for one in buffer.state.rows}

    def admit(examine: Examine = accept, agent: str = "scout") -> AdmitOutcome:
        return MemoryAdmission(buffer).run(agent, examine)

    return Store(
        buffer=buffer, admit=admit, expire=expire, rows=rows, announced=lambda: list(buffer.state.announced),
        waiting=MemoryAdmission(buffer).waiting,
    )  # fmt: skip


def _postgres(urls: TestDatabase) -> Iterator[Store]:
    app, admit_db = Database(urls.app), Database(urls.admit)

    def expire(job_id: UUID) -> None:
        with app.connection() as connection:
            connection.execute(
                "UPDATE perennial.jobs SET lease_until = now() - interval '1s' WHERE job_id = %s", (job_id,)
            )

    def rows() -> dict[str, tuple[str, UUID | None]]:
        with app.connection() as connection:
            found = connection.execute("SELECT example_id, state::text AS state, superseded_by FROM perennial.examples")
            return {str(one["example_id"]): (one["state"], one["superseded_by"]) for one in found}

    def announced() -> list[dict[str, Any]]:
        with app.connection() as connection:
            return connection.execute("SELECT topic, agent, payload FROM perennial.outbox ORDER BY id").fetchall()

    def admit(examine: Examine = accept, agent: str = "scout") -> AdmitOutcome:
        return Admission(admit_db, batch=7).run(agent, examine)

    yield Store(
        buffer=PostgresBuffer(app), admit=admit, expire=expire, rows=rows, announced=announced,
        waiting=Admission(admit_db).waiting,
    )  # fmt: skip
    app.close()
    admit_db.close()


@pytest.fixture(params=["memory", "postgres"])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    if request.param == "memory":
        made = _memory()
        made.buffer.sync_agents([record()])
        yield made
    else:
        for made in _postgres(request.getfixturevalue("database")):
            made.buffer.sync_agents([record()])
            yield made


@pytest.mark.req("J107")
def test_quiet_agents_had_rows_once_and_none_lately(store: Store) -> None:
    records = [record(name) for name in ("busy", "never", "scout", "stopped")]
    store.buffer.sync_agents(records)
    for agent in ("busy", "scout", "stopped"):
        store.buffer.add(row(f"a first text of {agent}", agent=agent))
    store.buffer.sync_agents(records[:-1])
    assert store.buffer.quiet(3600.0) == []
    time.sleep(2.1)
    assert store.buffer.quiet(2.0) == ["busy", "scout"]
    store.buffer.add(row("a second text", agent="busy"))
    assert store.buffer.quiet(2.0) == ["scout"]


@pytest.mark.req("J107")
def test_a_look_for_quiet_agents_reads_one_row_of_each(database: TestDatabase) -> None:
    pool = Database(database.app)
    PostgresBuffer(pool).sync_agents([record("busy"), record("scout")])
    with psycopg.connect(database.superuser) as connection:
        connection.execute(
            "INSERT INTO perennial.examples (example_id, agent, task, state, uncertainty, importance, priority, source, content_digest,"
            " input_digest, created_at, added_at) SELECT gen_random_uuid(), CASE WHEN n % 100 = 0 THEN 'scout' ELSE 'busy' END,"
            " 'sentiment', 'raw', 0.5, 0.5, 0, 'example', sha256(n::text::bytea), sha256(n::text::bytea), now(),"
            " now() - make_interval(hours => CASE WHEN n % 100 = 0 THEN 30 ELSE 1 END) FROM generate_series(1, 5000) AS n"
        )
        connection.execute("UPDATE perennial.sources SET first_seen = now() - interval '2 days'")
        connection.execute("ANALYZE perennial.examples")
        plan = connection.execute(
            b"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + load("perennial.ingest", "reads.sql")["quiet"].encode(),
            {"seconds": 86_400.0},
        ).fetchone()
    assert PostgresBuffer(pool).quiet(86_400.0) == ["scout"]
    pool.close()
    assert plan is not None
    assert "examples_newest" in str(plan[0])
    top = plan[0][0]["Plan"]
    assert top["Shared Hit Blocks"] + top["Shared Read Blocks"] < 40, "5,000 rows came in within the day"


@pytest.mark.req("D3")
def test_a_look_at_all_agents_names_those_with_something_to_admit(store: Store) -> None:
    names = ["idle", "scout", "unlabelled", "stranger", "stopped"]
    store.buffer.sync_agents([record(name) for name in names])
    assert store.waiting(names) == []
    store.buffer.add(row("Rates fell."))
    store.buffer.add(row("Rates rose.", None, agent="unlabelled"))
    store.buffer.add(row("Rates stood.", agent="stranger", task="unheard_of"))
    store.buffer.add(row("Rates sank.", agent="stopped"))
    assert store.waiting(names) == ["scout", "unlabelled", "stranger", "stopped"]
    for name in names[:4]:
        store.admit(agent=name)

    def away(*_: Any) -> Admitted | Refused:
        raise GuardUnavailable("the detector is away")

    store.admit(away, agent="stopped")
    # what came in is read; the row of an unknown task, and the one that nobody could look at, may move again later
    assert store.waiting(names) == ["stranger", "stopped"]
    store.admit(agent="stopped")
    assert store.waiting(names) == ["stranger"]
    assert store.waiting([]) == []


# --- the way in -------------------------------------------------------------------------------------------------------


def test_an_add_is_stored_once_and_announced_once(store: Store) -> None:
    one = row("Rates fell.")
    first, second = store.buffer.add(one), store.buffer.add(one)
    assert (first.added, first.duplicates, first.ids) == (1, 0, (one.example_id,))
    assert (second.added, second.duplicates, second.ids) == (0, 1, (one.example_id,))
    assert store.buffer.counts("scout") == {(TASK, "raw"): 1}
    assert [(line["agent"], line["payload"]) for line in store.announced()] == [
        ("scout", {"count": 1, "example_ids": [str(one.example_id)]})
    ]


def test_the_same_content_is_counted_and_answers_with_the_stored_id(store: Store) -> None:
    one = row("Rates fell.")
    store.buffer.add(one)
    again = store.buffer.add(row("Rates fell."))
    assert (again.added, again.duplicates, again.ids) == (0, 1, (one.example_id,))
    assert store.buffer.add(row("Rates fell.", "bad")).added == 1
    assert store.buffer.counters()["scout"]["duplicates"] == 1


@pytest.mark.parametrize("size", [3, 40])  # the small way and the one with COPY
def test_a_batch_keeps_the_order_of_its_ids(store: Store, size: int) -> None:
    batch = [row(f"text {number}") for number in range(size)]
    store.buffer.add(row("text 1", example_id=batch[0].example_id if size < 3 else uuid4()))
    batch.append(batch[2])
    result = store.buffer.add_many(batch)
    assert result.added == size - 1
    assert result.duplicates == 2
    assert [store.state(one) for one in batch if one.input_text != "text 1"] == ["raw"] * size
    assert result.ids[2] == batch[2].example_id == result.ids[-1]
    assert result.ids[1] not in {one.example_id for one in batch}
    assert len(store.announced()) == 2


def test_unknown_agents_are_refused_whole(store: Store) -> None:
    with pytest.raises(UnknownAgent, match="scout"):
        store.buffer.add_many([row("one"), row("two", agent="scuot")])
    assert store.buffer.counts("scout") == {}


@pytest.mark.req("J9")
def test_an_unknown_task_waits_in_quarantine_until_the_fleet_knows_it(store: Store) -> None:
    store.buffer.add(row("about sports", task="topic"))
    result = store.buffer.add(row("through an alias", task="sentiment_analysis"))
    assert result.quarantined == 0
    assert store.buffer.counts("scout") == {("topic", "quarantined"): 1, (TASK, "raw"): 1}
    assert store.buffer.counters()["scout"]["quarantined"] == 1
    store.admit()
    store.buffer.sync_agents([record(tasks=(TASK, "topic"))])
    store.admit()
    assert store.buffer.counts("scout") == {("topic", "ready"): 1, (TASK, "ready"): 1}


def test_rows_under_a_name_that_becomes_an_alias_join_their_task_and_repeats_stand_aside(store: Store) -> None:
    store.buffer.add_many([row("Rates fell.", task="mood"), row("Oil rose.", task="mood"), row("Rates fell.")])
    assert store.admit().admitted == 1
    known = record()
    known["tasks"][0]["aliases"] = ["mood"]
    store.buffer.sync_agents([known])
    assert store.admit().admitted == 1
    assert store.buffer.counts("scout") == {(TASK, "ready"): 2, (TASK, "superseded"): 1}
    fix = correction("oil ROSE.", "bad")
    store.buffer.add(fix)  # finds the row under its new task
    assert store.buffer.counts("scout") == {(TASK, "ready"): 1, (TASK, "superseded"): 2, (TASK, "raw"): 1}


@pytest.mark.req("J103")
def test_an_unlabelled_row_is_read_and_never_trained(store: Store) -> None:
    store.buffer.add(row("no label yet", None))
    assert store.admit().as_dict() == {"admitted": 0, "unlabelled": 1, "quarantined": 0, "unavailable": 0, "unsure": 0}
    assert store.admit().unlabelled == 0
    assert store.buffer.counts("scout") == {(TASK, "unlabelled"): 1}
    assert store.train() == []


def test_offsets_move_with_the_rows_and_a_repeat_does_nothing(store: Store) -> None:
    first = Offset(source="inbox", part="abc", position=2)
    bad = Rejection(source="inbox", part="abc", position=2, field="input_text", reason="is empty", raw=b"{}")
    assert store.buffer.add_many([row("one")], offsets=first, rejected=[bad]).added == 1
    assert store.buffer.add_many([row("two")], offsets=first).added == 0
    assert store.buffer.add_many([row("two")], offsets=Offset(source="inbox", part="abc", position=1)).added == 0
    assert store.buffer.offset("inbox", "abc") == first
    end = Offset(source="inbox", part="abc", position=2, finished=True)
    store.buffer.add_many([], offsets=end)
    assert store.buffer.offset("inbox", "abc") == end
    assert store.buffer.counters()[""]["rejected"] == 1
    assert store.buffer.counts("scout") == {(TASK, "raw"): 1}


# --- corrections ------------------------------------------------------------------------------------------------------


def test_a_correction_supersedes_what_waits_and_marks_what_was_trained(store: Store) -> None:
    trained, waiting = row("Rates fell.", "bad"), row("rates  FELL.", "neutral")
    store.buffer.add(trained)
    store.train()
    store.buffer.add(waiting)
    fix = correction("Rates fell.", "good")
    store.buffer.add(fix)
    assert store.rows()[str(waiting.example_id)] == ("superseded", fix.example_id)
    assert store.rows()[str(trained.example_id)] == ("trained", fix.example_id)
    assert store.buffer.replay_candidates("scout", TASK, 10, 1) == []
    late = row("RATES fell.", "neutral")
    store.buffer.add(late)
    assert store.rows()[str(late.example_id)] == ("superseded", fix.example_id)


def test_what_its_sender_takes_back_trains_no_more_and_may_come_again(store: Store) -> None:
    trained, ready, strange = row("Rates fell.", "bad"), row("Oil rose.", "bad"), row("Tin fell.", "bad", task="mood")
    store.buffer.add(trained)
    store.train()
    store.buffer.add_many([ready, strange])
    store.admit()
    raw, other = row("Gold rose.", "bad"), row("oil rose.", "good")
    store.buffer.add_many([raw, other])
    ids = [one.example_id for one in (trained, ready, strange, raw)]
    for _ in range(2):
        store.buffer.withdraw([*ids, uuid4()])
    marked = {one.example_id: store.rows()[str(one.example_id)] for one in (trained, ready, strange, raw)}
    words = ("trained", "superseded", "quarantined", "superseded")
    assert marked == {one: (word, one) for one, word in zip(ids, words, strict=True)}
    assert store.rows()[str(other.example_id)] == ("raw", None)
    assert store.buffer.replay_candidates("scout", TASK, 10, 1) == []
    store.buffer.withdraw([other.example_id], back=ids)
    assert [store.rows()[str(one)] for one in ids] == [
        (word, None) for word in ("trained", "ready", "quarantined", "raw")
    ]
    assert [one.example_id for one in store.buffer.replay_candidates("scout", TASK, 10, 1)] == [trained.example_id]


def test_what_its_sender_took_back_waits_again_when_somebody_says_it_again(store: Store) -> None:
    one, two, other = row("Rates fell.", "bad"), row("Oil rose.", "bad"), row("Rates fell.", "bad")
    store.buffer.add_many([one, two])
    store.admit()
    store.buffer.withdraw([one.example_id, two.example_id])
    result = store.buffer.add_many([other, *[row(f"filler {n}") for n in range(20)]])
    assert (result.added, result.duplicates, result.ids[0]) == (20, 1, one.example_id)
    assert [store.state(each) for each in (one, two)] == ["ready", "superseded"]


def test_what_was_taken_back_before_its_task_had_a_name_stays_so(store: Store) -> None:
    before = row("Rates fell.", "bad", task="mood")
    store.buffer.add(before)
    store.buffer.withdraw([before.example_id])
    known = record()
    known["tasks"][0]["aliases"] = ["mood"]
    store.buffer.sync_agents([known])
    store.admit()
    assert store.rows()[str(before.example_id)] == ("superseded", before.example_id)
    store.buffer.withdraw([], back=[before.example_id])
    store.admit()
    assert store.state(before) == "ready"


def test_what_is_taken_back_in_a_training_waits_no_more_after_it(store: Store) -> None:
    one = row("Rates fell.", "bad")
    store.buffer.add(one)
    store.admit()
    job_id, attempt = store.start()
    store.buffer.claim("scout", job_id, attempt, 10)
    store.buffer.withdraw([one.example_id])
    assert store.state(one) == "claimed"
    store.buffer.give_back(job_id, attempt, refused=False, reason="a test")
    assert store.state(one) == "superseded"


def test_what_a_correction_overtook_does_not_come_back_by_its_sender(store: Store) -> None:
    first, second, fix = row("Rates fell.", "bad"), row("Oil rose.", "bad"), correction("Rates fell.", "good")
    store.buffer.add_many([first, second])
    store.buffer.add(fix)
    store.buffer.withdraw([first.example_id, second.example_id])
    store.buffer.add(correction("Oil rose.", "good"))
    store.buffer.withdraw([], back=[first.example_id, second.example_id])
    assert store.rows()[str(first.example_id)] == ("superseded", fix.example_id)
    assert store.state(second) == "superseded"


def test_the_last_of_several_corrections_counts_also_within_one_batch(store: Store) -> None:
    batch = [correction("Rates fell.", label) for label in ("bad", "neutral", "bad")]
    result = store.buffer.add_many([row("Rates fell.", "x"), *batch, *[row(f"filler {n}") for n in range(20)]])
    assert result.added == 24
    assert [store.state(one) for one in batch] == ["superseded", "superseded", "raw"]
    again = store.buffer.add(correction("Rates fell.", "bad"))
    assert (again.added, again.ids) == (0, (batch[2].example_id,))


def test_a_correction_that_was_trained_and_is_made_again_is_trained_again(store: Store) -> None:
    first, second = correction("Rates fell.", "good"), correction("Rates fell.", "good")
    store.buffer.add(first)
    store.train("run1", "1.0.0")
    assert store.buffer.add(second).added == 1
    assert store.buffer.add(second).added == 0
    assert store.train("run2", "1.0.1") == ["Rates fell."]
    assert [one.example_id for one in store.buffer.regression("scout", TASK)] == [second.example_id]


def test_a_refused_correction_takes_nothing_away(store: Store) -> None:
    before, fix = row("Rates fell.", "good"), correction("Rates fell.", "no such label")
    store.buffer.add(before)
    store.admit()
    store.buffer.add(fix)

    def closed(task: str, text: str, expected: JSON, feedback: str | None) -> Admitted | Refused:
        return accept(task, text, expected, feedback) if expected == "good" else Refused(reason="unknown_label")

    assert store.admit(closed).quarantined == 1
    assert store.state(before) == "ready"
    assert store.state(fix) == "quarantined"


def test_corrections_whose_guard_was_away_leave_what_they_had_overtaken_to_the_one_that_holds(store: Store) -> None:
    trained, waiting = row("Rates fell.", "bad"), row("rates  FELL.", "neutral")
    store.buffer.add(trained)
    store.train()
    store.buffer.add(waiting)
    first, second = correction("Rates fell.", "no such label"), correction("Rates fell.", "good")

    def away(task: str, text: str, expected: JSON, feedback: str | None) -> Admitted | Refused:
        raise GuardUnavailable("away")

    def closed(task: str, text: str, expected: JSON, feedback: str | None) -> Admitted | Refused:
        return accept(task, text, expected, feedback) if expected == "good" else Refused(reason="unknown_label")

    store.buffer.add(first)
    store.admit(away)
    store.buffer.add(second)
    store.admit(away)
    store.admit(closed)
    assert store.state(first) == "quarantined"
    assert store.state(second) == "ready"
    assert store.rows()[str(trained.example_id)] == ("trained", second.example_id)
    assert store.rows()[str(waiting.example_id)] == ("superseded", second.example_id)
    assert store.buffer.replay_candidates("scout", TASK, 10, 1) == []


def test_a_more_urgent_repeat_of_a_waiting_correction_is_a_row_of_its_own(store: Store) -> None:
    calm, urgent = correction("Rates fell.", "good", priority=1), correction("Rates fell.", "good", priority=3)
    store.buffer.add(calm)
    assert not store.buffer.due("scout").due
    assert store.buffer.add(urgent).added == 1
    assert store.rows()[str(calm.example_id)] == ("superseded", urgent.example_id)
    assert store.buffer.due("scout").due
    for priority in (3, 2, 0):  # no more urgent: the same wish again
        repeat = store.buffer.add(correction("Rates fell.", "good", priority=priority))
        assert (repeat.added, repeat.ids) == (0, (urgent.example_id,))


def test_a_correction_under_a_name_that_becomes_an_alias_outranks_what_came_before_it(store: Store) -> None:
    trained, waiting, fix = (
        row("Rates fell.", "bad"),
        row("rates  FELL.", "neutral"),
        correction("Rates fell.", "good", task="mood"),
    )
    store.buffer.add(trained)
    store.train()
    store.buffer.add(waiting)
    store.buffer.add(fix)
    assert store.state(fix) == "quarantined"
    assert store.rows()[str(trained.example_id)] == ("trained", None)
    known = record()
    known["tasks"][0]["aliases"] = ["mood"]
    store.buffer.sync_agents([known])
    store.admit()
    assert store.state(fix) == "ready"
    assert store.rows()[str(trained.example_id)] == ("trained", fix.example_id)
    assert store.rows()[str(waiting.example_id)] == ("superseded", fix.example_id)


def _away(*_: Any) -> Admitted | Refused:
    raise GuardUnavailable("the detector is away")


def _in_a_minute() -> datetime:
    return datetime.now(UTC) + timedelta(minutes=1)


@pytest.mark.req("J49")
def test_rows_that_waited_for_the_guard_do_not_escape_a_correction_that_came_meanwhile(store: Store) -> None:
    store.buffer.sync_agents([record(holdout=0.5)])
    texts = [f"The minister stepped down {number}." for number in range(12)]
    rows = [row(text, "sports") for text in texts]
    store.buffer.add_many([*rows, row(f"{texts[0]} Nobody says why.", None)])
    store.admit(_away)
    fixes = [correction(text, "politics", priority=1) for text in texts]
    store.buffer.add_many(fixes)
    late = row(texts[0].upper(), "sports")
    store.admit(_away)
    store.buffer.add(late)  # the correction waits for the guard too
    store.admit()
    assert [store.rows()[str(one.example_id)] for one in rows] == [("superseded", fix.example_id) for fix in fixes]
    assert store.rows()[str(late.example_id)] == ("superseded", fixes[0].example_id)
    assert store.buffer.holdout("scout", TASK, _in_a_minute(), 99) == ()
    job_id, attempt = store.start()
    assert {(one.label, one.correction) for one in store.buffer.claim("scout", job_id, attempt, 99)} == {
        ("politics", True)
    }


def test_what_was_taken_back_while_the_guard_was_away_is_not_let_through_when_it_is_back(store: Store) -> None:
    store.buffer.sync_agents([record(holdout=0.5)])
    rows = [row(f"The minister stepped down {number}.", "sports") for number in range(12)]
    store.buffer.add_many(rows)
    store.admit(_away)
    store.buffer.withdraw([one.example_id for one in rows])
    store.admit()
    assert {store.state(one) for one in rows} == {"superseded"}
    assert store.buffer.holdout("scout", TASK, _in_a_minute(), 99) == ()
    store.buffer.withdraw([], back=[rows[0].example_id])
    store.admit()
    assert store.state(rows[0]) == "ready"


def test_rows_of_a_task_that_got_its_name_late_do_not_escape_a_correction_that_came_meanwhile(store: Store) -> None:
    before, wrong = row("Rates fell.", "bad", task="mood"), correction("Oil rose.", "bad", task="mood")
    store.buffer.add_many([before, wrong])
    fixes = [correction("rates FELL.", "good"), correction("oil ROSE.", "good")]
    store.buffer.add_many(fixes)
    known = record()
    known["tasks"][0]["aliases"] = ["mood"]
    store.buffer.sync_agents([known])
    store.admit()
    assert [store.rows()[str(one.example_id)] for one in (before, wrong)] == [
        ("superseded", fix.example_id) for fix in fixes
    ]
    job_id, attempt = store.start()
    assert {one.label for one in store.buffer.claim("scout", job_id, attempt, 99)} == {"good"}


@pytest.mark.req("J49", "J33")
def test_after_two_refusals_nothing_calls_for_another_training(store: Store) -> None:
    store.buffer.sync_agents([record(holdout=0.6)])
    store.buffer.add_many([row(f"text {number}") for number in range(120)])
    for run in ("first", "second"):
        store.admit()
        assert store.buffer.due("scout").due
        job_id, attempt = store.start(run)
        claimed = store.buffer.claim("scout", job_id, attempt, 1000)
        assert store.buffer.give_back(job_id, attempt, refused=True, reason="held: hold") == len(claimed)
        store.buffer.finish(job_id, attempt, JobStatus.COMPLETED)
    assert store.buffer.counts("scout") == {(TASK, "held"): len(claimed), (TASK, "holdout"): 120 - len(claimed)}
    assert 120 - len(claimed) > 50  # the holdout rows alone are more than the threshold
    assert (store.buffer.due("scout").due, store.buffer.due("scout").waiting) == (False, 0)


def test_a_row_is_read_as_it_is_kept(store: Store) -> None:
    one = row(
        "my secret", {"label": "good"}, user_feedback="note", uncertainty=0.123456789012, source_url="u", tag="qa"
    )
    store.buffer.add(one)
    raw = store.buffer.example(one.example_id)
    assert raw is not None
    assert (raw.state, raw.input_text, raw.uncertainty, raw.tag) == ("raw", None, 0.123456789012, "qa")
    store.admit()
    kept = store.buffer.example(one.example_id)
    assert kept is not None
    assert (kept.input_text, kept.expected_output, kept.created_at) == ("my <SECRET>", {"label": "good"}, T0)
    assert store.buffer.example(uuid4()) is None


@pytest.mark.req("J30")
def test_corrections_are_counted_by_their_tag(store: Store) -> None:
    store.buffer.add_many(
        [correction("a", "x", tag="qa"), correction("b", "x", tag="qa"), correction("c", "x", tag="manual")]
    )
    assert store.buffer.corrections_by_tag("scout") == {"qa": {"raw": 2}, "manual": {"raw": 1}}


# --- holdout ----------------------------------------------------------------------------------------------------------


def test_the_holdout_is_a_stable_share_and_never_claimed(store: Store) -> None:
    store.buffer.sync_agents([record(holdout=0.25)])
    batch = [row(f"text {number}") for number in range(400)]
    store.buffer.add_many(batch)
    store.admit()
    held = {one.example_id for one in store.buffer.holdout("scout", TASK, datetime.now(UTC) + timedelta(hours=1), 1000)}
    assert 60 <= len(held) <= 140
    # an input that differs in case and blanks goes the same way
    twins = [row(f"  TEXT {number} ", "bad") for number in range(400)]
    store.buffer.add_many(twins)
    texts = set(store.train(limit=2000))
    store.admit()
    again = {
        one.example_id for one in store.buffer.holdout("scout", TASK, datetime.now(UTC) + timedelta(hours=1), 1000)
    }
    expected = held | {twin.example_id for twin, one in zip(twins, batch, strict=True) if one.example_id in held}
    assert again == expected
    assert texts.isdisjoint({one.input_text for one in [*batch, *twins] if one.example_id in again})
    assert store.buffer.holdout("scout", TASK, T0, 1000) == ()
    rows = store.buffer.holdout("scout", TASK, datetime.now(UTC) + timedelta(hours=1), 10)
    assert rows == store.buffer.holdout("scout", TASK, datetime.now(UTC) + timedelta(hours=1), 1000)[:10]


def test_urgent_corrected_and_unlabelled_rows_are_never_held_out(store: Store) -> None:
    store.buffer.sync_agents([record(holdout=0.99)])
    store.buffer.add_many(
        [correction(f"c {n}", "x", n % 4) for n in range(20)] + [row(f"u {n}", None) for n in range(20)]
    )
    store.buffer.add_many([row(f"p {n}", priority=Priority.HIGH) for n in range(20)])
    assert len(store.train()) == 40
    assert store.buffer.holdout("scout", TASK, datetime.now(UTC) + timedelta(hours=1), 10) == ()


def test_a_correction_takes_its_input_out_of_the_holdout(store: Store) -> None:
    store.buffer.sync_agents([record(holdout=0.99)])
    store.buffer.add_many([row(f"text {number}") for number in range(20)])
    store.admit()
    [first, *_] = store.buffer.holdout("scout", TASK, datetime.now(UTC) + timedelta(hours=1), 10)
    store.buffer.add(correction(first.text, "bad"))
    rest = store.buffer.holdout("scout", TASK, datetime.now(UTC) + timedelta(hours=1), 100)
    assert first.example_id not in {one.example_id for one in rest}


# --- limits -----------------------------------------------------------------------------------------------------------


@pytest.mark.req("J2", "J20", "J32")
def test_a_full_buffer_loses_its_least_worth_and_never_a_correction(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    store.buffer.sync_agents([record(most=10), record("critic", most=10)])
    fixes = [correction(f"fix {n}", "x", n % 4) for n in range(3)]
    medium = [row(f"medium {n}", priority=Priority.MEDIUM, importance=0.0, uncertainty=0.0) for n in range(4)]
    store.buffer.add_many([*fixes, *medium])
    plain = [row(f"plain {n}", importance=n / 10) for n in range(10)]
    evicted = sum(store.buffer.add(one).evicted for one in plain)
    assert evicted == 7
    assert [store.state(one) for one in plain] == ["evicted"] * 7 + ["raw"] * 3
    assert {store.state(one) for one in [*fixes, *medium]} == {"raw"}
    assert store.buffer.waiting() == {"critic": 0, "scout": 10}
    assert store.buffer.counters()["scout"]["evicted"] == 7
    assert "least worth" in caplog.text
    assert store.buffer.add_many([correction(f"more {n}", "x") for n in range(12)]).evicted == 7
    assert store.buffer.waiting()["scout"] == 15  # nothing but corrections is left, and they stay


@pytest.mark.req("J19", "J96", "J102")
def test_an_override_changes_when_a_training_begins_and_not_for_agents_with_their_own(store: Store) -> None:
    store.buffer.sync_agents([record(threshold=50), record("critic", threshold=5, own={"update_threshold": 5})])
    for agent in ("scout", "critic"):
        store.buffer.add_many([row(f"text {n}", agent=agent) for n in range(4)])
    assert store.buffer.due_agents() == []
    store.buffer.set_override("update_threshold", 4, by="test")
    assert store.buffer.due_agents() == [("scout", Reason.THRESHOLD)]
    store.buffer.sync_agents([record(threshold=50), record("critic", threshold=5, own={"update_threshold": 5})])
    assert store.buffer.due_agents() == [("scout", Reason.THRESHOLD)]
    assert store.buffer.overrides() == {"update_threshold": 4.0}
    store.buffer.set_override("update_threshold", 3, by="constructor in a test")
    store.buffer.set_override("update_threshold", 9, by="environment of a test")
    assert store.buffer.overrides() == {"update_threshold": 3.0}
    store.buffer.set_override("update_threshold", None)
    assert store.buffer.due_agents() == []


def test_agents_that_left_the_fleet_become_inactive_and_keep_their_rows(store: Store) -> None:
    store.buffer.sync_agents([record(), record("critic")])
    store.buffer.add(row("text"))
    store.buffer.sync_agents([record("critic")], keep=True)
    assert set(store.buffer.fleet()) == {"critic", "scout"}
    store.buffer.sync_agents([record("critic")])
    assert set(store.buffer.fleet()) == {"critic"}
    with pytest.raises(UnknownAgent):
        store.buffer.add(row("another"))
    assert store.buffer.counts("scout") == {(TASK, "raw"): 1}
    limits = store.buffer.fleet()["critic"]["sentiment_analysis"]
    assert (limits.name, limits.kind, limits.max_length) == (TASK, "classification", 20_000)


# --- due --------------------------------------------------------------------------------------------------------------


@pytest.mark.req("J19", "J31")
def test_49_rows_are_not_due_and_50_are_also_with_a_holdout(store: Store) -> None:
    store.buffer.sync_agents([record(holdout=0.3)])
    store.buffer.add_many([row(f"text {n}") for n in range(49)])
    assert not store.buffer.due("scout").due
    assert store.buffer.due("scout").waiting == 49
    store.buffer.add(row("text 50"))
    assert store.buffer.due("scout").reason is Reason.THRESHOLD
    assert store.buffer.due_agents() == [("scout", Reason.THRESHOLD)]
    store.train()
    assert not store.buffer.due("scout").due
    assert store.buffer.due("scout").waiting == 0


def test_right_answers_kept_for_a_fair_holdout_call_for_no_training(store: Store) -> None:
    store.buffer.sync_agents([record(holdout=0.99, threshold=10, most=20)])
    store.buffer.add_many([row(f"text {n}", source=Source.SAMPLE) for n in range(40)])
    assert (store.buffer.due("scout").due, store.buffer.waiting()) == (False, {"scout": 0})
    store.admit()
    assert (store.buffer.due("scout").due, store.buffer.waiting()) == (False, {"scout": 0})
    later = datetime.now(UTC) + timedelta(hours=1)
    assert len(store.buffer.holdout("scout", TASK, later, 1000)) >= 39  # the buffer's limit of 20 does not bind them
    store.buffer.add_many([row(f"other {n}") for n in range(10)])
    assert store.buffer.due("scout").reason is Reason.THRESHOLD


@pytest.mark.req("J33", "J42", "K42")
@pytest.mark.parametrize("priority", [2, 3])
def test_one_urgent_correction_is_due_at_once(store: Store, priority: int) -> None:
    store.buffer.add(correction("Rates fell.", "good", 1))
    assert not store.buffer.due("scout").due
    store.buffer.add(correction("Oil rose.", "good", priority))
    due = store.buffer.due("scout")
    assert (due.reason, due.corrections) == (Reason.CORRECTION, 1)


@pytest.mark.req("J106")
def test_a_request_is_due_and_answered_by_the_run_even_when_nothing_waits(store: Store) -> None:
    first = store.buffer.request_training("scout", requested_by="editor")
    assert store.buffer.request_training("scout") == first
    assert store.buffer.due_agents() == [("scout", Reason.REQUEST)]
    job_id, attempt = store.start("manual__1")
    assert store.buffer.claim("scout", job_id, attempt, 10) == []
    store.buffer.finish(job_id, attempt, JobStatus.CANCELLED, note="nothing to train")
    assert store.buffer.due_agents() == []
    assert store.buffer.job(first).status is JobStatus.CANCELLED


def test_a_run_adopts_the_request_that_it_names(store: Store) -> None:
    asked = store.buffer.request_training("scout")
    request = JobRequest(agent="scout", run_id="api__7", job_id=asked)
    assert store.buffer.open_job(request) == asked
    assert store.buffer.open_job(request) == asked
    assert store.buffer.run_of_job(asked) == "api__7"
    store.start("api__7")
    with pytest.raises(StoreError, match="another run"):
        store.buffer.open_job(JobRequest(agent="scout", run_id="api__8", job_id=asked))


def test_runs_of_two_agents_may_bear_one_id_and_each_has_its_own_job(store: Store) -> None:
    scout, desk = (JobRequest(agent=agent, run_id="release-2026-11-21") for agent in ("scout", "desk"))
    first, second = store.buffer.open_job(scout), store.buffer.open_job(desk)
    assert first != second
    assert (store.buffer.open_job(scout), store.buffer.open_job(desk)) == (first, second)
    for agent, job_id in (("scout", first), ("desk", second)):
        job = store.buffer.job_of_run(agent, "release-2026-11-21")
        assert job is not None
        assert (job.job_id, job.agent) == (job_id, agent)


def test_a_run_does_not_adopt_the_request_of_another_agent(store: Store) -> None:
    asked = store.buffer.request_training("scout")
    with pytest.raises(StoreError, match="another agent"):
        store.buffer.open_job(JobRequest(agent="desk", run_id="api__7", job_id=asked))
    assert store.buffer.run_of_job(asked) == str(asked)


def test_a_running_agent_is_not_announced_and_a_dead_one_is(store: Store) -> None:
    store.buffer.add(correction("Rates fell.", "good"))
    job_id, attempt = store.start()
    assert store.buffer.running() == ["scout"]
    assert store.buffer.due_agents() == []
    store.admit()
    store.buffer.claim("scout", job_id, attempt, 10)
    assert not store.buffer.due("scout").due
    store.expire(job_id)
    assert [agent for agent, _reason in store.buffer.due_agents()] == ["scout"]


def test_after_a_failure_the_agent_rests_unless_asked(store: Store) -> None:
    store.buffer.add(correction("Rates fell.", "good"))
    job_id, attempt = store.start()
    store.buffer.finish(job_id, attempt, JobStatus.FAILED, error="out of memory")
    assert store.buffer.due_agents() == []
    store.buffer.request_training("scout")
    assert [agent for agent, _reason in store.buffer.due_agents()] == ["scout"]


# --- claims and jobs --------------------------------------------------------------------------------------------------


@pytest.mark.req("J24", "J35", "J37", "J39", "J40")
def test_claims_take_the_best_in_the_order_of_the_original(store: Store) -> None:
    batch = [
        row(f"{priority} {importance} {uncertainty} {minute}", priority=Priority(priority), importance=importance,
            uncertainty=uncertainty, created_at=T0 + timedelta(minutes=minute))
        for priority in (0, 1, 2, 3) for importance in (0.25, 0.75) for uncertainty in (0.25, 1.0) for minute in (0, 5)
    ]  # fmt: skip
    store.buffer.add_many(batch[1::2] + batch[::2])
    store.admit()
    job_id, attempt = store.start()
    claimed = store.buffer.claim("scout", job_id, attempt, 20)
    best = sorted(batch, key=lambda one: (one.priority, one.importance, one.uncertainty, one.created_at), reverse=True)
    assert [one.text for one in claimed] == [one.input_text for one in best[:20]]
    assert store.buffer.claim("scout", job_id, attempt, 20) == claimed


@pytest.mark.req("D9", "J74")
def test_one_training_per_agent_and_an_expired_one_gives_its_rows_back(store: Store) -> None:
    store.buffer.add_many([row(f"text {n}") for n in range(3)])
    store.admit()
    old, old_attempt = store.start("run1")
    assert len(store.buffer.claim("scout", old, old_attempt, 2)) == 2
    new = store.buffer.open_job(JobRequest(agent="scout", run_id="run2"))
    assert store.buffer.start_attempt(new, 60) is None
    store.expire(old)
    attempt = store.buffer.start_attempt(new, 60)
    assert attempt == 1
    assert len(store.buffer.claim("scout", new, attempt, 10)) == 3
    for write in (
        lambda: store.buffer.renew(old, old_attempt, 60),
        lambda: store.buffer.settle_trained(old, old_attempt, "1.0.0"),
        lambda: store.buffer.give_back(old, old_attempt, refused=True, reason="late"),
        lambda: store.buffer.finish(old, old_attempt, JobStatus.COMPLETED),
        lambda: store.buffer.claim("scout", old, old_attempt, 1),
    ):
        with pytest.raises(StaleClaim):
            write()
    assert store.buffer.settle_trained(new, attempt, "1.0.0") == 3
    assert store.buffer.job(old).error == "lease expired"


@pytest.mark.req("D10")
def test_the_same_run_started_again_goes_on_with_its_rows_and_fences_the_older_attempt(store: Store) -> None:
    store.buffer.add_many([row(f"text {n}") for n in range(5)])
    store.admit()
    job_id, first = store.start()
    rows = store.buffer.claim("scout", job_id, first, 3)
    _job, second = store.start()
    assert second == first + 1
    with pytest.raises(StaleClaim):
        store.buffer.claimed_rows(job_id, first)
    with pytest.raises(StaleClaim):
        store.buffer.advance(job_id, first, JobStatus.TRAINING)
    assert store.buffer.claim("scout", job_id, second, 5) == rows
    store.buffer.advance(job_id, second, JobStatus.TRAINING)
    assert store.buffer.settle_trained(job_id, second, "1.0.0") == 3
    assert store.buffer.settle_trained(job_id, second, "1.0.0") == 3
    store.buffer.finish(job_id, second, JobStatus.COMPLETED, note="three rows", version="1.0.0")
    with pytest.raises(StaleClaim):
        store.buffer.finish(job_id, second, JobStatus.COMPLETED)
    assert store.buffer.start_attempt(job_id, 60) is None  # it made its version: never twice
    done = store.buffer.job(job_id)
    assert (done.status, done.version, done.note, done.example_count) == (JobStatus.COMPLETED, "1.0.0", "three rows", 3)


def test_a_lease_that_ran_out_stops_writes_but_can_be_renewed_while_nobody_took_over(store: Store) -> None:
    job_id, attempt = store.start()
    store.expire(job_id)
    with pytest.raises(StaleClaim):
        store.buffer.advance(job_id, attempt, JobStatus.TRAINING)
    store.buffer.renew(job_id, attempt, 60)
    store.buffer.advance(job_id, attempt, JobStatus.TRAINING)


def test_rows_refused_twice_are_held_and_failures_do_not_count(store: Store) -> None:
    one = row("text")
    store.buffer.add(one)
    store.admit()
    for number, (refused, state) in enumerate([(True, "ready"), (False, "ready"), (True, "held")]):
        job_id, attempt = store.start(f"run{number}")
        assert len(store.buffer.claim("scout", job_id, attempt, 10)) == 1
        assert store.buffer.give_back(job_id, attempt, refused=refused, reason="slice sports fell") == 1
        store.buffer.finish(job_id, attempt, JobStatus.COMPLETED)
        assert store.state(one) == state


@pytest.mark.req("J49", "J87")
def test_holdout_rows_that_came_with_a_held_batch_judge_nobody(store: Store) -> None:
    store.buffer.sync_agents([record(holdout=0.5)])
    store.buffer.add_many([row(f"clean {number}") for number in range(40)])
    store.train("run1")
    clean = store.buffer.holdout("scout", TASK, datetime.now(UTC), 1000)
    first = store.buffer.job_of_run("scout", "run1")
    assert first is not None
    assert {one.job_id for one in clean} == {first.job_id}  # who came in with which training
    store.buffer.add_many([row(f"flipped {number}", "bad") for number in range(40)])
    for run in ("run2", "run3"):
        store.admit()
        job_id, attempt = store.start(run)
        store.buffer.claim("scout", job_id, attempt, 1000)
        seen = store.buffer.holdout("scout", TASK, datetime.now(UTC), 1000)
        assert len(seen) > len(clean)  # while it is on trial they are asked, and known as its own
        assert {one.job_id for one in seen if one not in clean} == {job_id}
        store.buffer.give_back(job_id, attempt, refused=True, reason="held: hold")
        store.buffer.finish(job_id, attempt, JobStatus.COMPLETED)
    assert store.buffer.holdout("scout", TASK, datetime.now(UTC), 1000) == clean
    store.buffer.add(row("another one"))
    store.admit()
    job_id, attempt = store.start("run4")
    store.buffer.claim("scout", job_id, attempt, 1000)
    assert {one.text for one in store.buffer.holdout("scout", TASK, datetime.now(UTC), 1000)} <= {
        "another one", *(one.text for one in clean)
    }  # fmt: skip


@pytest.mark.req("J90")
def test_a_job_keeps_what_the_person_who_asked_for_it_said(store: Store) -> None:
    wish = JobRequest(agent="scout", run_id="asked", why="the style guide changed", overrides={"epochs": 2})
    assert store.buffer.job(store.buffer.open_job(wish)).config == {"why": wish.why, "overrides": {"epochs": 2}}


@pytest.mark.req("J33", "J35")
def test_an_urgent_claim_takes_corrections_alone_and_the_rest_goes_on_waiting(store: Store) -> None:
    store.buffer.sync_agents([record(threshold=4, holdout=0.5)])
    ordinary = [row(f"text {n}") for n in range(12)]
    fixes = [correction("Rates fell.", "good"), correction("Oil rose.", "bad", 3)]
    store.buffer.add_many([*ordinary, correction("Gold fell.", "bad", 1), *fixes])
    store.admit()
    job_id, attempt = store.start()
    claimed = store.buffer.claim("scout", job_id, attempt, 100, urgent=True)
    assert [one.text for one in claimed] == ["Oil rose.", "Rates fell."]
    assert store.buffer.claim("scout", job_id, attempt, 100) == claimed  # a repeat finds the same
    store.buffer.settle_trained(job_id, attempt, "1.0.1")
    store.buffer.finish(job_id, attempt, JobStatus.COMPLETED, version="1.0.1")
    due = store.buffer.due("scout")  # rows of the holdout that came in count as before
    assert (due.reason, due.corrections) == (Reason.THRESHOLD, 0)
    assert sum(store.state(one) == "ready" for one in ordinary) == 12
    job_id, attempt = store.start("run2")
    assert store.buffer.claim("scout", job_id, attempt, 100, urgent=True) == []


@pytest.mark.req("J33")
def test_of_a_refused_batch_only_the_guilty_rows_are_refused_and_they_are_tried_again_by_themselves(
    store: Store,
) -> None:
    fixes = [correction(f"text {n}", "good") for n in range(3)]
    store.buffer.add_many(fixes)
    store.admit()
    ids = [one.example_id for one in fixes]
    job_id, attempt = store.start("run0")
    assert len(store.buffer.claim("scout", job_id, attempt, 10, urgent=True)) == 3
    assert store.buffer.give_back(job_id, attempt, refused=True, reason="held: x", spared=ids[1:]) == 3
    store.buffer.finish(job_id, attempt, JobStatus.COMPLETED)
    assert {one.row.example_id: (one.refusals, one.reason) for one in store.buffer.corrections("scout")} == {
        ids[0]: (1, "held: x"), ids[1]: (0, ""), ids[2]: (0, ""),
    }  # fmt: skip
    job_id, attempt = store.start("run1")
    assert {one.example_id for one in store.buffer.claim("scout", job_id, attempt, 10, urgent=True)} == set(ids[1:])
    store.buffer.settle_trained(job_id, attempt, "1.0.1")
    store.buffer.finish(job_id, attempt, JobStatus.COMPLETED, version="1.0.1")
    job_id, attempt = store.start("run2")
    assert [one.example_id for one in store.buffer.claim("scout", job_id, attempt, 10, urgent=True)] == ids[:1]
    store.buffer.give_back(job_id, attempt, refused=True, reason="held: x")
    store.buffer.finish(job_id, attempt, JobStatus.COMPLETED)
    assert store.state(fixes[0]) == "held"


@pytest.mark.req("J33", "J30")
def test_each_correction_says_what_became_of_it(store: Store) -> None:
    learned, missed, old, new = (
        correction("Rates fell.", "good"), correction("Oil rose.", "bad", 1), correction("Gold.", "x"), correction("Gold.", "y"),
    )  # fmt: skip
    for one in (row("no correction"), learned, missed):
        store.buffer.add(one)
    assert [one.row.text for one in store.buffer.corrections("scout")] == [
        "",
        "",
    ]  # nothing is read before it is redacted
    store.train("run1", "1.0.1")
    store.buffer.mark_learned([learned.example_id], "1.0.1")
    store.buffer.add(old)
    store.buffer.add(new)
    found = store.buffer.corrections("scout")
    assert [(one.row.example_id, one.row.priority, one.state.value, one.learned, one.version) for one in found] == [
        (new.example_id, 2, "raw", None, None),
        (old.example_id, 2, "superseded", None, None),
        (missed.example_id, 1, "trained", None, "1.0.1"),
        (learned.example_id, 2, "trained", "1.0.1", "1.0.1"),
    ]
    assert [one.row.text for one in found[2:]] == ["Oil rose.", "Rates fell."]
    assert found[3].row.created_at == T0
    assert [one.row.example_id for one in store.buffer.corrections("scout", 1)] == [new.example_id]
    assert store.buffer.corrections("nobody") == ()


def test_a_claimed_row_that_was_corrected_does_not_come_back(store: Store) -> None:
    one = row("Rates fell.", "bad")
    store.buffer.add(one)
    store.admit()
    job_id, attempt = store.start()
    store.buffer.claim("scout", job_id, attempt, 10)
    fix = correction("Rates fell.", "good")
    store.buffer.add(fix)
    store.buffer.give_back(job_id, attempt, refused=False, reason="")
    assert store.rows()[str(one.example_id)] == ("superseded", fix.example_id)


def test_finish_gives_back_what_the_job_still_holds(store: Store) -> None:
    store.buffer.add_many([row(f"text {n}") for n in range(4)])
    store.admit()
    job_id, attempt = store.start()
    claimed = store.buffer.claim("scout", job_id, attempt, 10)
    moved = store.buffer.set_aside(
        job_id, attempt, [claimed[0].example_id, uuid4()], state="held", reason="new_label_waiting"
    )
    assert moved == 1
    store.buffer.finish(job_id, attempt, JobStatus.CANCELLED)
    assert store.buffer.counts("scout") == {(TASK, "ready"): 3, (TASK, "held"): 1}


def test_rows_of_a_rare_new_label_wait_until_enough_carry_it(store: Store) -> None:
    store.buffer.add_many([row(f"space {n}", "space") for n in range(3)])
    store.admit()
    job_id, attempt = store.start()
    ids = [one.example_id for one in store.buffer.claim("scout", job_id, attempt, 10)]
    store.buffer.set_aside(job_id, attempt, ids, state="held", reason="new_label_waiting")
    store.buffer.finish(job_id, attempt, JobStatus.CANCELLED)
    assert store.buffer.release_new_labels("scout", TASK, 4) == 0
    store.buffer.add(row("space 4", "space"))
    store.admit()
    assert store.buffer.release_new_labels("scout", TASK, 4) == 3
    assert len(store.train("run2")) == 4


def test_the_record_of_a_job_grows(store: Store) -> None:
    job_id, attempt = store.start()
    store.buffer.update_job_record(job_id, attempt, dataset={"new": 3}, config={"seed": 1})
    store.buffer.update_job_record(job_id, attempt, dataset={"replay": 5})
    assert store.buffer.job(job_id).dataset == {"new": 3, "replay": 5}
    assert store.buffer.job(job_id).config == {"seed": 1}
    assert store.buffer.job_of_run("scout", "run1") == store.buffer.job(job_id)
    assert store.buffer.job_of_run("scout", "no such run") is None
    assert store.buffer.job_started(job_id) >= store.buffer.job(job_id).created_at


# --- slices and history -----------------------------------------------------------------------------------------------


def test_replay_and_regression_come_from_what_was_trained(store: Store) -> None:
    store.buffer.add_many(
        [row(f"text {n}") for n in range(30)] + [correction("Oil rose.", "good", 2), correction("Low.", "x", 1)]
    )
    assert store.buffer.regression("scout", TASK) == ()
    store.train()
    one = store.buffer.replay_candidates("scout", TASK, 10, 7)
    assert one == store.buffer.replay_candidates("scout", TASK, 10, 7)
    assert [r.text for r in one] != [r.text for r in store.buffer.replay_candidates("scout", TASK, 10, 8)]
    [slice_row] = store.buffer.regression("scout", TASK)
    assert (slice_row.text, slice_row.label, slice_row.correction, slice_row.priority) == ("Oil rose.", "good", True, 2)
    assert len(store.buffer.recent_trained("scout", TASK, 5)) == 5
    store.buffer.mark_learned([str(slice_row.example_id)], "1.0.0")
    store.buffer.add(correction("Oil rose.", "bad"))
    assert store.buffer.regression("scout", TASK) == ()


@pytest.mark.req("J3", "J46")
def test_the_history_keeps_refused_updates_and_no_line_twice(store: Store) -> None:
    job_id = uuid4()
    for number in range(7):
        store.buffer.record_performance(
            agent="scout", model_name=f"scout-1.0.{number}", before=0.8, after=0.7, examples=5, rollback=number % 2 == 1,
            job_id=uuid4() if number else job_id, version=f"1.0.{number}",
        )  # fmt: skip
    store.buffer.record_performance(
        agent="scout",
        model_name="scout-1.0.0",
        before=0.8,
        after=0.7,
        examples=5,
        rollback=False,
        job_id=job_id,
        version="1.0.0",
    )
    assert store.buffer.performance_size() == 7
    last = store.buffer.performance("scout")
    assert [line.version for line in last] == ["1.0.2", "1.0.3", "1.0.4", "1.0.5", "1.0.6"]
    assert [line.rollback_triggered for line in last] == [False, True, False, True, False]
    assert store.buffer.performance("critic") == []


# --- admission --------------------------------------------------------------------------------------------------------


@pytest.mark.req("K68")
def test_admission_stores_the_redacted_text_and_only_that(store: Store) -> None:
    label = {"entities": [[0, 6, "NAME"]]}
    store.buffer.add(row("secret agent", label, user_feedback="note"))
    assert store.admit().admitted == 1
    job_id, attempt = store.start()
    [claimed] = store.buffer.claim("scout", job_id, attempt, 10)
    assert (claimed.text, claimed.label) == ("<SECRET> agent", label)


@pytest.mark.req("K67")
def test_an_absent_guard_sends_everything_to_quarantine_until_it_is_back(store: Store) -> None:
    store.buffer.add_many([row(f"text {n}") for n in range(20)])
    asked = 0

    def away(task: str, text: str, expected: JSON, feedback: str | None) -> Admitted | Refused:
        nonlocal asked
        asked += 1
        raise GuardUnavailable("no detector")

    outcome = store.admit(away)
    assert (outcome.quarantined, outcome.unavailable, asked) == (20, 20, 1)
    assert store.buffer.counts("scout") == {(TASK, "quarantined"): 20}
    assert not store.buffer.due("scout").due
    assert store.admit().admitted == 20


def test_a_text_that_breaks_the_examiner_stands_aside_alone(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    store.buffer.add_many([row(f"text {n}") for n in range(20)])

    def fragile(task: str, text: str, expected: JSON, feedback: str | None) -> Admitted | Refused:
        if text == "text 7":
            raise RecursionError(text)
        return accept(task, text, expected, feedback)

    assert store.admit(fragile).as_dict() == {
        "admitted": 19, "unlabelled": 0, "quarantined": 1, "unavailable": 0, "unsure": 0,
    }  # fmt: skip
    assert "text 7" not in caplog.text


@pytest.mark.req("K57")
def test_rows_are_found_by_id_whatever_became_of_them(store: Store) -> None:
    plain, urgent, late = row("Rates fell."), correction("Rain.", "bad", 3, source_id="desk"), row("Snow.")
    store.buffer.add_many([plain, urgent])
    store.train()
    store.buffer.add(late)  # not admitted: its text is not to be read yet
    unknown = uuid4()
    found = store.buffer.rows_by_id([plain.example_id, urgent.example_id, late.example_id, unknown])
    assert unknown not in found
    assert found[late.example_id].row is None
    known = found[urgent.example_id]
    assert (known.state.value, known.source, known.priority) == ("trained", "correction", 3)
    assert known.row is not None
    assert (known.row.text, known.row.label, known.row.correction, known.row.source_id) == (
        "Rain.",
        "bad",
        True,
        "desk",
    )
    assert store.buffer.rows_by_id([]) == {}
