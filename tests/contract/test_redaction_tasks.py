"""Questions about finds that nobody is sure of: laws of the twin in memory and of PostgreSQL, from admission to the answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg
import pytest

from perennial.audit.log import AuditLog, PostgresAuditLog
from perennial.audit.memory import MemoryAuditLog
from perennial.domain.example import Example
from perennial.domain.redaction import Doubt
from perennial.domain.words import JSON, JobStatus, RedactionDecision, State
from perennial.errors import AsideRefused, GuardUnavailable
from perennial.ingest.admit import Admission, Admitted, Refused
from perennial.ingest.memory import MemoryAdmission, MemoryBuffer
from perennial.ingest.memory_redaction_tasks import MemoryRedactionTasks
from perennial.ingest.redaction_tasks import PostgresRedactionTasks, RedactionOrder, RedactionTask, RedactionTasks
from perennial.storage.database import Database
from tests.contract.test_stores import TASK, Store, _memory, _postgres, correction, record, row
from tests.postgres_fixture import Database as Urls

pytestmark = pytest.mark.req("K67", "K68", "J110")


@dataclass
class Stub:
    """A redactor that replaces SURE always, and capitalised names of ``unsure`` unless they are cleared; it notes what it looked at."""

    version: str = "1"
    unsure: tuple[str, ...] = ("Grace",)
    cleared: Mapping[bytes, frozenset[str]] | None = None
    away: bool = False

    def __call__(self, task: str, text: str, expected: JSON, feedback: str | None) -> Admitted | Refused:
        if self.away:
            raise GuardUnavailable("it is away")
        if "broken" in text and self.version != "1":
            raise ValueError(text)
        key = text.encode()[:16]
        allowed = (self.cleared or {}).get(key, frozenset())
        shown, doubts = text.replace("SURE", "<SURE>"), []
        for word in self.unsure:
            if word in text and f"key-{word}" not in allowed:
                shown = shown.replace(word, "Qo")
                doubts.append(Doubt(kind="PERSON", key=f"key-{word}", before="", word=word, after=" said"))
        standing = tuple(one for one in sorted(allowed) if one.removeprefix("key-") in text)
        return Admitted(
            text=shown, expected_output=expected, feedback=feedback, counts={}, version=self.version, doubts=tuple(doubts),
            text_key=key, cleared=standing,
        )  # fmt: skip


@dataclass
class Desk:
    """A buffer whose admission asks, the tasks and the audit log beside it."""

    store: Store
    tasks: RedactionTasks
    audit: AuditLog
    admission: Any
    urls: Urls | None = None

    def admit(self, stub: Stub | None = None) -> Any:
        return self.admission.run("scout", stub or self.stub())

    def stub(self, version: str = "1", **more: Any) -> Stub:
        return Stub(version=version, cleared=self.tasks.cleared("scout"), **more)

    def again(self, version: str = "1", *, trained: bool = False, **more: Any) -> int:
        done: int = self.admission.redact_again(
            "scout", version, self.stub(version, **more), seconds=30.0, trained=trained
        )
        return done

    def add(self, *texts: str, admit: bool = True, **fields: Any) -> list[Example]:
        rows = [row(text, **fields) for text in texts]
        self.store.buffer.add_many(rows)
        if admit:
            self.admit()
        return rows

    def waits(self) -> bool:
        return self.admission.waiting(["scout", "nobody"]) == ["scout"]

    def open(self) -> list[RedactionTask]:
        return self.tasks.tasks("scout", words=True)

    def decide(self, decision: str, number: int, seen: int | None = None, **more: Any) -> str | None:
        order = RedactionOrder(
            agent=more.pop("agent", "scout"), number=number, decision=RedactionDecision(decision), round=seen,
            actor=more.pop("actor", "ana"), why=more.pop("why", "looked at it"),
        )  # fmt: skip
        return self.tasks.decide(order)

    def text(self, one: Example) -> str | None:
        found = self.store.buffer.example(one.example_id)
        assert found is not None
        return found.input_text

    def state(self, one: Example) -> tuple[State, str]:
        found = self.store.buffer.example(one.example_id)
        assert found is not None
        return found.state, found.reason

    def claim(self, run: str = "run") -> tuple[UUID, int, list[str]]:
        job, attempt = self.store.start(run)
        return job, attempt, sorted(one.text for one in self.store.buffer.claim("scout", job, attempt, 100))


@pytest.fixture(params=["memory", "postgres"])
def desk(request: pytest.FixtureRequest) -> Iterator[Desk]:
    if request.param == "memory":
        store, log = _memory(), MemoryAuditLog()
        store.buffer.sync_agents([record()])
        assert isinstance(store.buffer, MemoryBuffer)
        yield Desk(store, MemoryRedactionTasks(store.buffer, log), log, MemoryAdmission(store.buffer))
        return
    urls = request.getfixturevalue("database")
    app, admit = Database(urls.app), Database(urls.admit)
    for store in _postgres(urls):
        store.buffer.sync_agents([record()])
        yield Desk(store, PostgresRedactionTasks(app), PostgresAuditLog(app), Admission(admit, batch=2), urls)
    app.close()
    admit.close()


def test_an_unsure_find_is_replaced_at_once_and_asked_about(desk: Desk) -> None:
    (one, plain) = desk.add("Grace said SURE", "nothing here", admit=False)
    outcome = desk.admit()
    assert (outcome.admitted, outcome.unsure, outcome.quarantined) == (2, 1, 0)
    assert (desk.text(one), desk.text(plain)) == ("Qo said <SURE>", "nothing here")
    assert desk.state(one) == (State.READY, "")  # it may train meanwhile, on the redacted copy
    (task,) = desk.open()
    assert (task.task, task.round, dict(task.kinds), task.rows) == (TASK, 1, {"PERSON": 1}, 1)
    assert [(doubt.word, doubt.after) for doubt in task.doubts] == [("Grace", " said")]
    assert desk.tasks.tasks("scout")[0].doubts == ()  # only where the caller may show them
    assert dict(desk.tasks.totals()) == {"scout": 1}
    assert "word=" not in repr(task)


def test_a_restored_word_comes_back_and_is_not_asked_about_again(desk: Desk) -> None:
    (one, other) = desk.add("Grace said SURE", "Grace told nobody")
    numbers = {task.doubts[0].after + str(task.number): task.number for task in desk.open()}
    number = min(numbers.values())
    assert desk.decide("restore", number, 1) is None
    assert len(desk.open()) == 1
    assert desk.text(one) == "Qo said <SURE>"  # nothing raw by the decision alone: admission reads the original
    assert desk.waits()  # harvest comes by itself, though no new row did
    assert desk.again() == 1
    assert not desk.waits()
    assert (desk.text(one), desk.text(other)) == ("Grace said <SURE>", "Qo told nobody")
    assert desk.state(one) == (State.READY, "")
    (note,) = desk.tasks.notes([one.example_id]).values()
    assert (note.version, note.cleared) == ("1", frozenset({"key-Grace"}))
    assert desk.again() == 0
    # another row of the same text inherits the answer
    (twin,) = desk.add("Grace said SURE", label="bad")
    assert desk.text(twin) == "Grace said <SURE>"
    assert len(desk.open()) == 1
    assert [entry.action for entry in desk.audit.entries("scout", 10)] == ["redaction_restored"]


def test_a_confirmed_word_stays_replaced_and_is_not_asked_about_again(desk: Desk) -> None:
    (one,) = desk.add("Grace said it")
    (task,) = desk.open()
    assert desk.decide("confirm", task.number, task.round) is None
    (twin,) = desk.add("Grace said it", label="bad")
    assert (desk.open(), desk.text(one), desk.text(twin)) == ([], "Qo said it", "Qo said it")
    assert desk.again("2") == 2  # a changed redactor asks only about new words
    assert desk.open() == []
    assert desk.again("3", unsure=("Grace", "it")) == 2
    (task,) = desk.open()
    assert (task.round, sorted(doubt.word for doubt in task.doubts)) == (2, ["Grace", "it"])


def test_a_dropped_text_leaves_training_and_the_books_keep_it(desk: Desk) -> None:
    (one, twin) = desk.add("Grace said it", admit=False) + desk.add("Grace said it", label="bad")
    (task,) = desk.open()
    assert task.rows == 2
    assert desk.decide("drop", task.number) is None
    assert [desk.state(each) for each in (one, twin)] == [(State.EVICTED, "dropped by ana")] * 2
    assert desk.claim()[2] == []
    (entry,) = desk.audit.entries("scout", 10)
    assert (entry.actor, entry.action, entry.subject, entry.detail["rows"]) == ("ana", "redaction_dropped", TASK, 2)
    assert "Grace" not in str(entry.detail)
    (back,) = desk.add("Grace said it", label="neutral")  # nobody said anything about this one
    (asked,) = desk.open()
    assert (asked.number, asked.round) == (task.number, 2)
    assert desk.state(back)[0] is State.READY


def test_what_a_training_has_cannot_be_dropped_but_be_restored(desk: Desk) -> None:
    (one,) = desk.add("Grace said it")
    (task,) = desk.open()
    job, attempt, texts = desk.claim()
    assert texts == ["Qo said it"]
    told = desk.decide("drop", task.number)
    assert told is not None
    assert "in a training" in told
    assert desk.open() == [task]
    assert desk.decide("restore", task.number) is None
    assert desk.again() == 0  # the training keeps the copy that it has
    desk.store.buffer.settle_trained(job, attempt, "1.0.0")
    desk.store.buffer.finish(job, attempt, JobStatus.COMPLETED, note="done", version="1.0.0")
    assert desk.again() == 0
    assert desk.waits()
    assert desk.again(trained=True) == 1
    assert not desk.waits()
    assert (desk.text(one), desk.state(one)[0]) == ("Grace said it", State.TRAINED)


def test_a_second_answer_and_a_stale_one_are_refused_in_words(desk: Desk) -> None:
    desk.add("Grace said it")
    (task,) = desk.open()
    for told, words in (
        (desk.decide("confirm", task.number + 1), "has no redaction task"),
        (desk.decide("confirm", task.number, agent="other"), "has no redaction task"),
        (desk.decide("confirm", task.number, 7), "other words by now"),
    ):
        assert told is not None
        assert words in told
    with pytest.raises(AsideRefused):
        desk.decide("confirm", task.number, why=" ")
    assert desk.decide("confirm", task.number, 1) is None
    assert desk.decide("restore", task.number, 1) == f"task {task.number} is confirmed already; nothing changed"
    assert dict(desk.tasks.totals()) == {}
    assert len(desk.audit.entries("scout", 10)) == 1


def test_a_changed_redactor_redacts_again_what_waits_and_what_is_replayed(desk: Desk) -> None:
    (trained,) = desk.add("OLD trained")
    desk.store.train("first")
    rows = desk.add("OLD ready", "OLD unlabelled", "broken") + desk.add("OLD and more")
    (bare,) = desk.add("OLD no label", label=None)
    assert desk.again("2", unsure=("OLD",)) == 5
    assert desk.text(rows[0]) == "Qo ready"
    assert desk.text(bare) == "Qo no label"
    assert desk.state(bare)[0] is State.UNLABELLED
    assert desk.state(rows[2]) == (State.QUARANTINED, "examiner_failed:ValueError")  # one text cannot stop the rest
    assert desk.text(trained) == "OLD trained"
    assert desk.again("2", unsure=("OLD",), trained=True) == 1
    assert (desk.text(trained), desk.state(trained)[0]) == ("Qo trained", State.TRAINED)
    assert desk.again("2", trained=True) == 0
    assert len(desk.open()) == 5


def test_what_a_training_finds_left_waits_for_the_new_redactor_alone(desk: Desk) -> None:
    (one, other) = desk.add("OLD a", "b")
    job, attempt, _ = desk.claim()
    desk.store.buffer.set_aside(job, attempt, [one.example_id], state="quarantined", reason="redactor_changed")
    desk.store.buffer.finish(job, attempt, JobStatus.CANCELLED)
    assert desk.admit().admitted == 0
    assert desk.waits()
    assert desk.again("2", unsure=("OLD",)) >= 1
    assert not desk.waits()
    assert (desk.text(one), desk.state(one)) == ("Qo a", (State.READY, ""))
    assert desk.text(other) == "b"


@pytest.mark.req("K24")
def test_a_label_of_the_models_own_making_is_known_after_another_redaction_and_stands_as_redacted(desk: Desk) -> None:
    (own,) = desk.add("OLD a", label="Jane", predicted_output="Jane")

    def redact(task: str, text: str, expected: JSON, feedback: str | None) -> Admitted | Refused:
        return Admitted(text=text, expected_output="<NAME>", feedback=feedback, version="2")

    assert desk.admission.redact_again("scout", "2", redact, seconds=30.0, trained=False) == 1
    assert desk.store.buffer.origins([own.example_id])[own.example_id].self_labelled
    if desk.urls is not None:
        with psycopg.connect(desk.urls.app) as connection:
            found = connection.execute("SELECT expected_output, predicted_output FROM perennial.examples").fetchall()
        assert found == [("<NAME>", "<NAME>")]


def test_what_waits_for_the_new_redactor_does_not_escape_a_correction_that_came_meanwhile(desk: Desk) -> None:
    (one,) = desk.add("OLD a")
    job, attempt, _ = desk.claim()
    desk.store.buffer.set_aside(job, attempt, [one.example_id], state="quarantined", reason="redactor_changed")
    desk.store.buffer.finish(job, attempt, JobStatus.CANCELLED)
    fix = correction("OLD a", "bad")
    desk.store.buffer.add(fix)
    desk.admit()
    assert desk.again("2", unsure=("OLD",)) >= 1
    assert desk.store.rows()[str(one.example_id)] == ("superseded", fix.example_id)
    assert desk.claim("next")[2] == ["Qo a"]


def test_without_a_detector_rows_stay_as_they_are(desk: Desk) -> None:
    rows = desk.add("OLD a", "OLD b", "OLD c")
    assert desk.again("2", away=True) == 0
    assert [desk.state(one) for one in rows] == [(State.READY, "")] * 3
    assert desk.again("2", unsure=("OLD",)) == 3


def test_a_question_is_closed_when_no_detector_is_unsure_any_more(desk: Desk) -> None:
    desk.add("Grace said it")
    assert len(desk.open()) == 1
    assert desk.again("2", unsure=()) == 1
    assert desk.open() == []
    assert dict(desk.tasks.cleared("scout")) == {}


def test_a_correction_does_not_wait_for_an_answer(desk: Desk) -> None:
    desk.store.buffer.add(correction("Grace said it", "bad"))
    desk.admit()
    job, attempt = desk.store.start("urgent")
    claimed = desk.store.buffer.claim("scout", job, attempt, 10, urgent=True)
    assert [one.text for one in claimed] == ["Qo said it"]
    assert len(desk.open()) == 1


@pytest.mark.parametrize("desk", ["postgres"], indirect=True)
def test_a_row_without_an_original_is_redacted_again_from_what_it_holds(desk: Desk) -> None:
    assert desk.urls is not None
    (one,) = desk.add("Grace and SURE, OLD")
    with psycopg.connect(desk.urls.admit) as connection:
        connection.execute("DELETE FROM perennial.originals")
    assert desk.again("2", unsure=("OLD",)) == 1
    assert desk.text(one) == "Qo and <<SURE>>, Qo"  # from the redacted text, which a real redactor leaves as it is


@pytest.mark.parametrize("desk", ["postgres"], indirect=True)
def test_words_are_written_by_admission_alone_and_go_with_the_answer(desk: Desk) -> None:
    assert desk.urls is not None
    desk.add("Grace said it")
    with psycopg.connect(desk.urls.app) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("UPDATE perennial.redaction_tasks SET words = '{}'")
    with psycopg.connect(desk.urls.app) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("DELETE FROM perennial.redaction_tasks")
    (task,) = desk.open()
    desk.decide("restore", task.number)
    with psycopg.connect(desk.urls.app) as connection:
        (line,) = connection.execute("SELECT t::text FROM perennial.redaction_tasks t").fetchall()
    assert "Grace said" not in line[0]
    assert '"word"' not in line[0]
