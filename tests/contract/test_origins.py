"""Where rows came from and what waits for its source's share: laws of both forms of the buffer."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from perennial.domain.example import Example
from perennial.domain.origin import REFUSED, SOURCE_CAP
from perennial.domain.words import JSON, JobStatus, Source
from perennial.errors import GuardUnavailable, StaleClaim
from perennial.ingest.admit import Admitted, Refused
from tests.contract.test_stores import TASK, Store, correction, record, row
from tests.contract.test_stores import store as store  # the fixture: each law is met by both forms

pytestmark = pytest.mark.req("J49", "K24")


def rows_of(source: str, count: int, start: int = 0) -> list[Example]:
    return [row(f"{source} says {number}", source_id=source) for number in range(start, start + count)]


def test_the_origin_says_way_in_sender_and_since_when(store: Store) -> None:
    before = datetime.now(UTC)
    old, new = row("first", source_id="jane"), row("second", source_id="jane", source=Source.FEEDBACK)
    other = correction("third", "bad")
    for one in (old, new, other):
        store.buffer.add(one)
    found = store.buffer.origins([new.example_id, other.example_id, UUID(int=1)])
    assert set(found) == {new.example_id, other.example_id}
    assert (found[new.example_id].kind, found[new.example_id].source_id) == (Source.FEEDBACK, "jane")
    assert (found[other.example_id].kind, found[other.example_id].source_id) == (Source.CORRECTION, "")
    first = store.buffer.origins([old.example_id])[old.example_id].first_seen
    assert found[new.example_id].first_seen == first  # since the sender's first row, not this one's
    assert (
        before - timedelta(seconds=5) < first < datetime.now(UTC) + timedelta(seconds=5)
    )  # T0 of the row counts for nothing


def test_a_sender_is_new_for_each_agent_and_cannot_date_itself_back(store: Store) -> None:
    store.buffer.sync_agents([record(), record("other")])
    here, there = row("a", source_id="jane"), row("a", source_id="jane", agent="other")
    store.buffer.add(here)
    store.buffer.add(there)
    found = store.buffer.origins([here.example_id, there.example_id])
    assert found[here.example_id].first_seen < found[there.example_id].first_seen
    assert found[here.example_id].first_seen > here.created_at + timedelta(days=30)


@pytest.mark.parametrize(("good", "bad"), [("good", "bad"), ("rather good", "rather bad")])
def test_a_label_of_the_models_own_making_never_enters_the_holdout(store: Store, good: str, bad: str) -> None:
    store.buffer.sync_agents([record(holdout=0.999)])
    own = row("its own answer", good, predicted_output=good)
    other = row("another answer", good, predicted_output=bad)
    outcome = row("an outcome", good, predicted_output=good, source=Source.SAMPLE)
    told = row("told", good, predicted_output=good, source=Source.FEEDBACK)
    store.buffer.add_many([own, other, outcome, told])
    store.admit()
    kept = {one.text for one in store.buffer.holdout("scout", TASK, datetime.now(UTC) + timedelta(minutes=1), 100)}
    assert kept == {"another answer", "an outcome", "told"}
    found = store.buffer.origins([one.example_id for one in (own, other, outcome, told)])
    assert {identity for identity, origin in found.items() if origin.self_labelled} == {own.example_id}


@pytest.mark.parametrize(
    "label", ["said by the secret Jane Doe", "x" * 65, ["good", "bad"], {"tone": "good"}, "secret", "203.0.113.7"]
)
def test_a_label_of_the_models_own_making_is_known_as_such_whatever_its_form(store: Store, label: JSON) -> None:
    store.buffer.sync_agents([record(holdout=0.999)])
    own, told = row("its own", label, predicted_output=label), row("told", "good", predicted_output=label)
    outcome = row("an outcome", label, predicted_output=label, source=Source.SAMPLE)
    store.buffer.add_many([own, told, outcome])

    def redact(task: str, text: str, expected: JSON, feedback: str | None) -> Admitted | Refused:
        shown = "<NAME>" if expected == "secret" else expected
        return Admitted(text=text, expected_output=shown, feedback=feedback, version="1")

    store.admit(redact)
    found = store.buffer.origins([one.example_id for one in (own, told, outcome)])
    assert {identity for identity, origin in found.items() if origin.self_labelled} == {own.example_id}
    kept = {one.text for one in store.buffer.holdout("scout", TASK, datetime.now(UTC) + timedelta(minutes=1), 100)}
    assert kept == {"told", "an outcome"}


@pytest.mark.parametrize("label", ["good", "rather good"])
def test_a_label_of_the_models_own_making_is_known_as_such_also_after_an_absent_guard(store: Store, label: str) -> None:
    store.buffer.sync_agents([record(holdout=0.999)])
    own = row("its own answer", label, predicted_output=label)
    long = row("a sentence", "good", predicted_output="good says Jane Doe of the desk")
    store.buffer.add_many([own, long])

    def away(*_: Any) -> Admitted | Refused:
        raise GuardUnavailable("the detector is away")

    for _ in range(2):
        assert store.admit(away).unavailable == 2
        assert not store.buffer.origins([own.example_id])[own.example_id].self_labelled  # nothing of it was looked at
    assert store.admit().admitted == 2
    found = store.buffer.origins([own.example_id, long.example_id])
    assert [found[one.example_id].self_labelled for one in (own, long)] == [True, False]
    kept = store.buffer.holdout("scout", TASK, datetime.now(UTC) + timedelta(minutes=1), 100)
    assert own.example_id not in {one.example_id for one in kept}


def capped(store: Store, count: int, source: str = "eve", start: int = 0) -> list[Example]:
    """Rows of a source that one training held back."""
    rows = rows_of(source, count, start)
    store.buffer.add_many(rows)
    store.admit()
    job, attempt = store.start(f"held-{source}-{start}")
    store.buffer.claim("scout", job, attempt, 1000)
    ids = [one.example_id for one in rows]
    assert store.buffer.set_aside(job, attempt, ids, state="held", reason=SOURCE_CAP) == count
    store.buffer.finish(job, attempt, JobStatus.CANCELLED)
    return rows


def test_capped_rows_call_for_no_training_and_join_the_next_one_as_far_as_it_has_room(store: Store) -> None:
    store.buffer.sync_agents([record(threshold=5)])
    eve = capped(store, 30)
    capped(store, 30, start=30)
    assert not store.buffer.due("scout").due
    store.buffer.add_many(rows_of("desk", 100))
    store.admit()
    job, attempt = store.start()
    store.buffer.claim("scout", job, attempt, 1000)
    assert store.buffer.recall_capped("scout", job, attempt, share=0.02, most=0.05) == 2
    assert (
        store.buffer.recall_capped("scout", job, attempt, share=0.02, most=0.05) == 0
    )  # a repeat finds the room taken
    joined = {one.text for one in store.buffer.claimed_rows(job, attempt) if one.source_id == "eve"}
    assert joined <= {one.input_text for one in eve}  # the oldest first
    with pytest.raises(StaleClaim):
        store.buffer.recall_capped("scout", job, attempt + 1, share=0.02, most=0.05)


def test_all_sources_together_join_by_their_common_share_in_turns(store: Store) -> None:
    for source in ("eve", "mallory", "trudy"):
        capped(store, 10, source)
    store.buffer.add_many(rows_of("desk", 100))
    store.admit()
    job, attempt = store.start()
    store.buffer.claim("scout", job, attempt, 1000)
    assert store.buffer.recall_capped("scout", job, attempt, share=0.02, most=0.05) == 5
    senders = [one.source_id for one in store.buffer.claimed_rows(job, attempt) if one.source_id != "desk"]
    assert sorted(senders) == ["eve", "eve", "mallory", "mallory", "trudy"]


def test_a_small_claim_has_no_room(store: Store) -> None:
    capped(store, 30)
    store.buffer.add_many(rows_of("desk", 49))
    store.admit()
    job, attempt = store.start()
    store.buffer.claim("scout", job, attempt, 1000)
    assert store.buffer.recall_capped("scout", job, attempt, share=0.02, most=0.05) == 0


def test_a_correction_overtakes_what_is_held(store: Store) -> None:
    eve = capped(store, 3)
    store.buffer.add(correction(eve[0].input_text, "bad"))
    store.buffer.add_many(rows_of("desk", 200))
    store.admit()
    assert store.state(eve[0]) == "superseded"
    job, attempt = store.start()
    store.buffer.claim("scout", job, attempt, 1000)
    assert store.buffer.recall_capped("scout", job, attempt, share=0.02, most=0.05) == 2


def test_what_is_held_is_told_by_task_reason_and_source(store: Store) -> None:
    capped(store, 4)
    capped(store, 2, "mallory")
    found = [(line.task, line.reason, line.source_id, line.rows) for line in store.buffer.held("scout")]
    assert found == [(TASK, SOURCE_CAP, "eve", 4), (TASK, SOURCE_CAP, "mallory", 2)]
    store.buffer.add_many(rows_of("desk", 7))
    store.admit()
    job, attempt = store.start()
    for _ in range(2):
        store.buffer.claim("scout", job, attempt, 1000)
        store.buffer.give_back(job, attempt, refused=True, reason="held: a slice fell")
    assert (TASK, REFUSED, "desk", 7) in [
        (one.task, one.reason, one.source_id, one.rows) for one in store.buffer.held("scout")
    ]
