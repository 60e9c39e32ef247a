"""Rows that stand aside: laws of the twin in memory and of PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from perennial.audit.log import AuditLog, PostgresAuditLog
from perennial.audit.memory import MemoryAuditLog
from perennial.domain.example import Example
from perennial.domain.origin import LABEL_CONFLICT, NEW_LABEL, SOURCE_CAP
from perennial.domain.words import JSON, AsideAction, JobStatus, Priority, Source, State
from perennial.errors import AsideRefused
from perennial.ingest.admit import Admitted, Refused
from perennial.ingest.aside import MOST_GROUPS, NEWEST, AsideGroup, AsideKey, AsideOrder, AsideStore, PostgresAside
from perennial.ingest.memory import MemoryBuffer
from perennial.ingest.memory_aside import MemoryAside
from perennial.storage.database import Database
from tests.contract.test_stores import TASK, Store, _memory, _postgres, accept, correction, record, row

pytestmark = pytest.mark.req("J110", "K68", "M74")


@dataclass
class Desk:
    """A buffer with what stands aside in it, the audit log beside it, and the full rows for a look."""

    store: Store
    aside: AsideStore
    audit: AuditLog

    def admit_refusing(self, word: str, reason: str) -> None:
        """Admit everything that does not hold the word; that is refused with the reason."""

        def examine(task: str, text: str, expected: JSON, feedback: str | None) -> Admitted | Refused:
            return Refused(reason=reason) if word in text else accept(task, text, expected, feedback)

        self.store.admit(examine)

    def held(self, texts: list[str], reason: str = SOURCE_CAP, run: str = "held", **fields: Any) -> list[Example]:
        """Rows that a training or the screening set aside."""
        rows = [row(text, **fields) for text in texts]
        self.store.buffer.add_many(rows)
        self.store.admit()
        job, attempt = self.store.start(run)
        self.store.buffer.claim("scout", job, attempt, 1000)
        ids = [one.example_id for one in rows]
        assert self.store.buffer.set_aside(job, attempt, ids, state="held", reason=reason) == len(rows)
        self.store.buffer.finish(job, attempt, JobStatus.CANCELLED)
        return rows

    def order(self, action: str, state: str, code: str, ids: list[Example] | None = None, **more: Any) -> AsideOrder:
        return AsideOrder(
            agent="scout", action=AsideAction(action), key=AsideKey(state=State(state), task=more.pop("task", TASK), code=code),
            actor=more.pop("actor", "ana"), why=more.pop("why", "looked at them"),
            ids=None if ids is None else tuple(one.example_id for one in ids), **more,
        )  # fmt: skip

    def stands(self, one: Example) -> tuple[State, str]:
        found = self.store.buffer.example(one.example_id)
        assert found is not None
        return found.state, found.reason

    def counted(self) -> dict[tuple[str, str, str], int]:
        return {(one.key.state.value, one.key.task, one.key.code): one.rows for one in self.aside.groups("scout")}


@pytest.fixture(params=["memory", "postgres"])
def desk(request: pytest.FixtureRequest) -> Iterator[Desk]:
    if request.param == "memory":
        store, log = _memory(), MemoryAuditLog()
        store.buffer.sync_agents([record()])
        assert isinstance(store.buffer, MemoryBuffer)
        yield Desk(store, MemoryAside(store.buffer, log), log)
        return
    urls = request.getfixturevalue("database")
    app = Database(urls.app)
    for store in _postgres(urls):
        store.buffer.sync_agents([record()])
        yield Desk(store, PostgresAside(app), PostgresAuditLog(app))
    app.close()


def test_groups_and_totals_tell_why_and_how_many(desk: Desk) -> None:
    assert (desk.aside.groups("scout"), desk.aside.totals()) == ([], [])
    desk.store.buffer.sync_agents([record(), record("other")])
    desk.held(["a", "b"])
    desk.held(["c"], "held: slices: sports fell", run="two")
    desk.store.buffer.add_many(
        [row("no label", None), row("bad one"), row("bad two"), row("x", task="mood"), row("bad", agent="other")]
    )
    desk.admit_refusing("bad", "too_long")
    assert desk.counted() == {
        ("held", TASK, "held"): 1, ("held", TASK, SOURCE_CAP): 2, ("quarantined", TASK, "too_long"): 2,
        ("quarantined", "mood", "unknown_task"): 1, ("unlabelled", TASK, ""): 1,
    }  # fmt: skip
    totals = {(one.agent, one.state.value): one.rows for one in desk.aside.totals()}
    assert totals == {("scout", "held"): 3, ("scout", "quarantined"): 3, ("scout", "unlabelled"): 1}


def test_many_made_up_tasks_hide_no_other_state_and_a_group_is_found_by_its_rows(desk: Desk) -> None:
    desk.held(["a", "b"])
    desk.store.buffer.add_many([row("x", task=f"made_up_{number:03}") for number in range(MOST_GROUPS + 5)])
    desk.store.buffer.add_many([row("no label", None)])
    desk.store.admit()
    found = desk.counted()
    assert sum(state == "quarantined" for state, _, _ in found) == MOST_GROUPS
    assert (found["held", TASK, SOURCE_CAP], found["unlabelled", TASK, ""]) == (2, 1)
    left_out = AsideKey(state=State.QUARANTINED, task=f"made_up_{MOST_GROUPS + 4}", code="unknown_task")
    assert (left_out.state.value, left_out.task, left_out.code) not in found
    assert desk.aside.group("scout", left_out) == AsideGroup(key=left_out, rows=1)
    assert desk.aside.group("scout", AsideKey(state=State.HELD, task=TASK, code="unknown_task")) is None


def test_pages_of_rows_follow_each_other_without_gap_or_repeat(desk: Desk) -> None:
    rows = desk.held([f"text {number}" for number in range(7)])
    desk.held(["another"], LABEL_CONFLICT, run="two")
    key = AsideKey(state=State.HELD, task=TASK, code=SOURCE_CAP)
    seen: list[UUID] = []
    numbers = [NEWEST]
    while page := desk.aside.rows("scout", key=key, before=numbers[-1], limit=3):
        assert len(page) <= 3
        seen += [one.example_id for one in page]
        numbers += [one.number for one in page]
    assert sorted(seen) == sorted(one.example_id for one in rows)
    assert numbers == sorted(numbers, reverse=True)
    assert len(desk.aside.rows("scout", limit=50)) == 8
    assert {one.key.code for one in desk.aside.rows("scout")} == {SOURCE_CAP, LABEL_CONFLICT}
    assert desk.aside.rows("nobody") == []


@pytest.mark.req("K67", "K68")
def test_a_text_is_shown_redacted_or_not_at_all(desk: Desk) -> None:
    desk.held(["a secret", "long " * 200], source_id="jane")
    desk.store.buffer.add_many([row("bad secret", "jane@x.org"), row("no label, a secret", None)])
    desk.admit_refusing("bad", "label_form")
    found = {one.key.code: one for one in desk.aside.rows("scout")}
    assert (found["label_form"].text, found["label_form"].label, found["label_form"].length) == (None, None, None)
    assert found[""].text == "no label, a <SECRET>"
    texts = [one.text for one in desk.aside.rows("scout", key=AsideKey(state=State.HELD, task=TASK, code=SOURCE_CAP))]
    assert sorted(text or "" for text in texts) == ["a <SECRET>", "long " * 80]
    job, attempt = _claimed_again(desk, "a secret too")
    ids = [one.example_id for one in desk.store.buffer.claimed_rows(job, attempt)]
    desk.store.buffer.set_aside(job, attempt, ids, state="quarantined", reason="personal_data_left")
    leaking = next(one for one in desk.aside.rows("scout") if one.reason == "personal_data_left")
    assert (leaking.text, leaking.label) == (None, None)  # it was admitted, and the second look still found something


def _claimed_again(desk: Desk, text: str) -> tuple[UUID, int]:
    desk.store.buffer.add(row(text))
    desk.store.admit()
    job, attempt = desk.store.start("again")
    desk.store.buffer.claim("scout", job, attempt, 10)
    return job, attempt


def test_released_held_rows_train_again_and_the_screening_leaves_them_alone(desk: Desk) -> None:
    rows = desk.held(["a", "b", "c"])
    moved = desk.aside.settle(desk.order("release", "held", SOURCE_CAP, rows[:2]))
    assert set(moved.ids) == {one.example_id for one in rows[:2]}
    assert [desk.stands(one) for one in rows] == [(State.READY, "released")] * 2 + [(State.HELD, SOURCE_CAP)]
    assert all(origin.released for origin in desk.store.buffer.origins(moved.ids).values())
    assert desk.aside.settle(desk.order("release", "held", SOURCE_CAP, rows)).ids == (rows[2].example_id,)
    assert sorted(desk.store.train("next")) == ["a", "b", "c"]


def test_released_quarantined_rows_go_through_admission_again(desk: Desk) -> None:
    one, unlabelled = row("bad secret"), row("bad secret without label", None)
    desk.store.buffer.add_many([one, unlabelled])
    desk.admit_refusing("bad", "too_long")
    assert desk.aside.settle(desk.order("release", "quarantined", "too_long")).ids
    assert desk.stands(one) == (State.RAW, "")
    assert desk.stands(unlabelled) == (State.UNLABELLED, "")
    found = desk.store.buffer.example(one.example_id)
    assert found is not None
    assert found.input_text is None  # nothing can be read or trained before admission looked again
    desk.admit_refusing("bad", "still_bad")
    assert desk.stands(one) == (State.QUARANTINED, "still_bad")
    desk.aside.settle(desk.order("release", "quarantined", "still_bad"))
    desk.store.admit()
    assert desk.stands(one)[0] is State.READY
    assert desk.stands(unlabelled)[0] is State.UNLABELLED
    assert desk.store.train() == ["bad <SECRET>"]


def test_what_was_redacted_too_little_is_redacted_again_after_its_release(desk: Desk) -> None:
    one = row("a secret")
    desk.store.buffer.add(one)
    desk.store.admit(
        lambda task, text, expected, feedback: Admitted(text=text, expected_output=expected, feedback=None)
    )
    job, attempt = desk.store.start()
    desk.store.buffer.claim("scout", job, attempt, 10)
    desk.store.buffer.set_aside(job, attempt, [one.example_id], state="quarantined", reason="personal_data_left")
    desk.store.buffer.finish(job, attempt, JobStatus.CANCELLED)
    desk.aside.settle(desk.order("release", "quarantined", "personal_data_left"))
    assert desk.store.train("next") == ["a <SECRET>"]


def test_a_row_that_a_correction_gives_back_is_looked_at_again_when_personal_data_was_left_in_it(desk: Desk) -> None:
    old = row("Rates fell.", "bad")
    desk.store.buffer.add(old)
    desk.store.admit()
    job, attempt = desk.store.start()
    desk.store.buffer.claim("scout", job, attempt, 10)
    fix = correction("Rates fell.", "good")
    desk.store.buffer.add(fix)  # while the training has the row
    desk.store.buffer.set_aside(job, attempt, [old.example_id], state="quarantined", reason="personal_data_left")
    desk.store.buffer.finish(job, attempt, JobStatus.CANCELLED)
    desk.aside.settle(desk.order("release", "quarantined", "personal_data_left"))
    assert desk.stands(old)[0] is State.SUPERSEDED
    looked: list[JSON] = []

    def examine(task: str, text: str, expected: JSON, feedback: str | None) -> Admitted | Refused:
        looked.append(expected)
        return Refused(reason="unknown_label") if expected == "good" else accept(task, text, expected, feedback)

    for _ in range(2):  # the correction is refused and gives the row back
        desk.store.admit(examine)
    assert desk.stands(old) == (State.READY, "")
    assert "bad" in looked


def test_a_released_row_does_not_escape_a_correction_that_came_while_it_stood_aside(desk: Desk) -> None:
    desk.store.buffer.sync_agents([record(holdout=0.999)])
    old = row("Rates fell.", "bad")
    desk.store.buffer.add(old)
    desk.admit_refusing("Rates", "too_long")
    fix = correction("Rates fell.", "good")
    desk.store.buffer.add(fix)
    desk.store.train()
    desk.aside.settle(desk.order("release", "quarantined", "too_long"))
    desk.store.admit()
    assert desk.store.rows()[str(old.example_id)] == ("superseded", fix.example_id)
    assert desk.store.buffer.holdout("scout", TASK, datetime.now(UTC) + timedelta(minutes=1), 10) == ()


@pytest.mark.req("K24")
def test_a_released_row_is_known_again_as_the_models_own_answer(desk: Desk) -> None:
    own = row("Rates fell.", "good", predicted_output="good")
    desk.store.buffer.add(own)
    desk.admit_refusing("Rates", "too_long")
    desk.aside.settle(desk.order("release", "quarantined", "too_long"))
    assert desk.store.admit().admitted == 1
    assert desk.store.buffer.origins([own.example_id])[own.example_id].self_labelled


def test_a_released_correction_outranks_again_what_came_before_it(desk: Desk) -> None:
    trained, waiting, later = row("Rates fell.", "good"), row("RATES fell.", "neutral"), row("rates fell.", "fine")
    desk.store.buffer.add(trained)
    desk.store.train()
    desk.store.buffer.add(waiting)
    desk.store.admit()
    fix = correction("Rates fell.", "bad")
    desk.store.buffer.add(fix)
    desk.admit_refusing("Rates", "too_long")
    assert desk.store.rows()[str(trained.example_id)] == ("trained", None)  # a refused correction takes nothing away
    desk.store.buffer.add(later)
    desk.aside.settle(desk.order("release", "quarantined", "too_long"))
    assert desk.store.rows()[str(trained.example_id)] == ("trained", fix.example_id)
    assert desk.store.rows()[str(waiting.example_id)] == ("superseded", fix.example_id)
    assert desk.store.rows()[str(later.example_id)][1] is None  # it came after; the claim judges it
    assert desk.stands(fix) == (State.RAW, "")


def test_a_dropped_correction_overtakes_nothing_any_more_and_may_be_made_again(desk: Desk) -> None:
    trained, waiting = row("Rates fell.", "good"), row("RATES fell.", "neutral")
    desk.store.buffer.add(trained)
    desk.store.train()
    desk.store.buffer.add(waiting)
    desk.store.admit()
    (wrong,) = desk.held(["Rates fell."], label="bad", source=Source.CORRECTION, priority=Priority.HIGH)
    assert desk.store.rows()[str(trained.example_id)] == ("trained", wrong.example_id)
    assert desk.store.rows()[str(waiting.example_id)] == ("superseded", wrong.example_id)
    desk.aside.settle(desk.order("drop", "held", SOURCE_CAP))
    assert desk.stands(wrong)[0] is State.EVICTED
    assert desk.store.rows()[str(trained.example_id)] == ("trained", None)
    assert desk.store.rows()[str(waiting.example_id)] == ("ready", None)
    late = row("rates FELL.", "fine")
    desk.store.buffer.add(late)
    assert desk.stands(late) == (State.RAW, "")  # nothing that holds outranks it
    assert sorted(desk.store.train("next", "1.0.1")) == ["RATES fell.", "rates FELL."]
    again = correction("Rates fell.", "bad")
    assert desk.store.buffer.add(again).added == 1  # the same answer as the dropped one is no repeat of it
    assert desk.store.rows()[str(trained.example_id)] == ("trained", again.example_id)


def test_of_two_corrections_the_older_holds_again_when_the_newer_is_dropped(desk: Desk) -> None:
    waiting = row("Rates fell.", "neutral")
    desk.store.buffer.add(waiting)
    first = correction("Rates fell.", "good")
    desk.store.buffer.add(first)
    (second,) = desk.held(["Rates fell."], label="bad", source=Source.CORRECTION, priority=Priority.HIGH)
    assert desk.store.rows()[str(first.example_id)] == ("superseded", second.example_id)
    desk.aside.settle(desk.order("drop", "held", SOURCE_CAP))
    assert desk.store.rows()[str(first.example_id)][1] is None
    assert desk.store.rows()[str(waiting.example_id)] == ("superseded", first.example_id)
    assert desk.store.train("next") == ["Rates fell."]
    assert [one.label for one in desk.store.buffer.regression("scout", TASK)] == ["good"]


@pytest.mark.parametrize(("action", "state"), [("release", State.SUPERSEDED), ("drop", State.EVICTED)])
@pytest.mark.parametrize(("aside", "code"), [("quarantined", "personal_data_left"), ("held", SOURCE_CAP)])
def test_a_row_that_was_overtaken_while_a_training_had_it_can_be_settled(
    desk: Desk, action: str, state: State, aside: str, code: str
) -> None:
    one = row("Rates fell.", "bad")
    desk.store.buffer.add(one)
    desk.store.admit()
    job, attempt = desk.store.start("overtaken")
    desk.store.buffer.claim("scout", job, attempt, 10)
    fix = correction("Rates fell.", "good")
    desk.store.buffer.add(fix)
    assert desk.store.buffer.set_aside(job, attempt, [one.example_id], state=aside, reason=code) == 1
    desk.store.buffer.finish(job, attempt, JobStatus.CANCELLED)
    assert desk.stands(one) == (State(aside), code)
    moved = desk.aside.settle(desk.order(action, aside, code, [one]))
    assert moved.ids == (one.example_id,)
    assert desk.stands(one)[0] is state
    assert desk.store.rows()[str(one.example_id)][1] == fix.example_id
    assert desk.store.train("next") == ["Rates fell."]  # the correction alone


@pytest.mark.parametrize(("action", "state"), [("release", State.READY), ("drop", State.EVICTED)])
def test_a_whole_reason_moves_in_steps_up_to_what_was_seen_and_takes_its_holdout_along(
    desk: Desk, action: str, state: State
) -> None:
    desk.store.buffer.sync_agents([record(holdout=0.5)])
    rows = [row(f"flipped {number}", "bad") for number in range(30)]
    desk.store.buffer.add_many(rows)
    for run in ("one", "two"):
        desk.store.admit()
        job, attempt = desk.store.start(run)
        desk.store.buffer.claim("scout", job, attempt, 1000)
        desk.store.buffer.give_back(job, attempt, refused=True, reason="held: slices: a fell")
        desk.store.buffer.finish(job, attempt, JobStatus.COMPLETED)
    desk.store.buffer.sync_agents([record()])
    key = AsideKey(state=State.HELD, task=TASK, code="held")
    until = desk.aside.rows("scout", key=key, limit=1)[0].number
    late = desk.held(["came later"], "held: slices: b fell", run="three")
    order = desk.order(action, "held", "held", until=until)
    held = sum(desk.stands(one)[0] is State.HELD for one in rows)
    assert 5 < held < 25
    moved, steps = 0, []
    while (step := desk.aside.settle(order, limit=4)).ids:
        steps.append(step)
        moved += len(step.ids)
    assert (moved, len(steps)) == (held, -(-held // 4))
    assert sum(one.holdout for one in steps) == 30 - held  # they were marked with the batch
    assert {desk.stands(one)[0] for one in rows} == {state}
    assert desk.stands(late[0]) == (State.HELD, "held: slices: b fell")
    assert desk.aside.settle(order) == type(step)()


def test_a_repeat_and_rows_that_moved_on_change_nothing_and_write_nothing(desk: Desk) -> None:
    rows = desk.held(["a", "b"])
    other = desk.held(["c"], LABEL_CONFLICT, run="two")
    order = desk.order("drop", "held", SOURCE_CAP, [*rows, *other])
    assert set(desk.aside.settle(order).ids) == {one.example_id for one in rows}  # the reason is the fence
    assert desk.stands(rows[0]) == (State.EVICTED, "dropped by ana")
    assert desk.aside.settle(order).ids == ()
    assert desk.aside.settle(desk.order("release", "held", SOURCE_CAP, rows)).ids == ()
    assert desk.aside.settle(desk.order("release", "held", LABEL_CONFLICT, other, task="mood")).ids == ()
    foreign = AsideOrder(agent="other", action=AsideAction.DROP, key=order.key, actor="ana", why="w", ids=order.ids)
    assert desk.aside.settle(foreign).ids == ()
    assert len(desk.audit.entries("scout")) == 1


def test_each_step_is_audited_with_ids_and_counts_and_never_a_text(desk: Desk) -> None:
    rows = desk.held(["a secret", "b secret"], source_id="jane")
    desk.aside.settle(desk.order("release", "held", SOURCE_CAP, rows, why="the desk vouches"))
    (entry,) = desk.audit.entries("scout")
    assert (entry.actor, entry.action, entry.subject) == ("ana", "held_released", TASK)
    assert sorted(entry.detail["ids"]) == sorted(str(one.example_id) for one in rows)
    assert (entry.detail["rows"], entry.detail["why"], entry.detail["reason_code"]) == (
        2,
        "the desk vouches",
        SOURCE_CAP,
    )
    assert "secret" not in str(entry.detail)
    assert "jane" not in str(entry.detail)


@pytest.mark.parametrize(
    ("action", "state", "code", "says"),
    [
        ("release", "unlabelled", "", "without a label"), ("release", "quarantined", "unknown_task", "declare it"),
        ("release", "held", NEW_LABEL, "come back by themselves"), ("release", "ready", "released", "do not stand aside"),
        ("drop", "trained", "", "do not stand aside"),
    ],
)  # fmt: skip
def test_what_a_reason_does_not_allow_is_refused_with_the_remedy(
    desk: Desk, action: str, state: str, code: str, says: str
) -> None:
    with pytest.raises(AsideRefused, match=says):
        desk.aside.settle(desk.order(action, state, code))


@pytest.mark.parametrize("missing", [{"actor": " "}, {"why": ""}])
def test_nobody_decides_without_a_name_and_a_reason(desk: Desk, missing: dict[str, str]) -> None:
    rows = desk.held(["a"])
    with pytest.raises(AsideRefused, match="name of who decides"):
        desk.aside.settle(desk.order("drop", "held", SOURCE_CAP, rows, **missing))
    assert desk.stands(rows[0])[0] is State.HELD


@pytest.mark.req("D9")
def test_a_step_that_dies_before_its_audit_entry_has_moved_nothing_and_is_repeated(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = desk.held(["a", "b"])
    order = desk.order("release", "held", SOURCE_CAP)

    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr("perennial.ingest.aside.entry_of", dies)
        broken.setattr("perennial.ingest.memory_aside.entry_of", dies)
        with pytest.raises(KeyboardInterrupt):
            desk.aside.settle(order)
    assert {desk.stands(one) for one in rows} == {(State.HELD, SOURCE_CAP)}
    assert desk.audit.entries("scout") == ()
    assert len(desk.aside.settle(order).ids) == 2
    assert len(desk.audit.entries("scout")) == 1
