"""The contract of the alert store, met in memory and on PostgreSQL."""

from __future__ import annotations

import threading

import pytest

from perennial.alerts.kinds import Cause, Kind
from perennial.alerts.store import AlertStore

HOLD = Cause(kind=Kind.HOLD, key="job-1", agent="scout", text="held once")
LEASE = Cause(kind=Kind.LEASE, key="job-2", agent="scout", text="stuck")
RUN = Cause(kind=Kind.FAILURE, key="run:harvest", text="harvest failed")


@pytest.mark.req("J107")
def test_a_cause_is_raised_once_until_it_is_over_and_again_when_it_comes_back(store: AlertStore) -> None:
    store.keep([HOLD])
    store.keep([HOLD, LEASE])
    store.keep([HOLD, LEASE])
    assert [(one.kind, one.cause) for one in store.recent()] == [(Kind.LEASE, "job-2"), (Kind.HOLD, "job-1")]
    store.keep([LEASE])
    assert [one.kind for one in store.recent()] == [Kind.LEASE]
    assert [one.cleared_at is None for one in store.recent(over=True)] == [True, False]
    store.keep([HOLD, LEASE])
    assert [one.kind for one in store.recent(over=True)] == [Kind.HOLD, Kind.LEASE, Kind.HOLD]


def test_the_words_follow_what_is_true_now(store: AlertStore) -> None:
    store.keep([HOLD])
    store.keep([Cause(kind=Kind.HOLD, key="job-1", agent="scout", text="held for another reason")])
    assert [one.text for one in store.recent()] == ["held for another reason"]


def test_what_could_not_be_looked_at_stays_as_it_was(store: AlertStore) -> None:
    store.keep([HOLD, RUN])
    store.keep([], blind=["failure:run:"])
    assert [one.kind for one in store.recent()] == [Kind.FAILURE]
    store.keep([])
    assert store.recent() == ()


def test_an_agent_that_could_not_be_looked_at_keeps_its_own_alert_alone(store: AlertStore) -> None:
    mine, like_it = (Cause(kind=Kind.BREAKER, key=name, agent=name, text="paused") for name in ("scout", "scout_two"))
    store.keep([mine, like_it])
    store.keep([], blind=["breaker:scout:"])
    assert [one.agent for one in store.recent()] == ["scout"]


def test_an_alert_is_told_until_it_was_marked_also_when_it_is_over(store: AlertStore) -> None:
    store.keep([HOLD])
    store.keep([LEASE])
    first, second = store.undelivered()
    assert (first.kind, first.cleared_at is not None, second.kind) == (Kind.HOLD, True, Kind.LEASE)
    store.delivered(first.id)
    store.delivered(first.id)
    assert [one.id for one in store.undelivered()] == [second.id]
    assert [one.id for one in store.undelivered(limit=0)] == []


def test_two_looks_at_the_same_time_raise_one_alert(store: AlertStore) -> None:
    gate = threading.Barrier(4)

    def look() -> None:
        gate.wait()
        store.keep([HOLD, LEASE, RUN])

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.recent(over=True)) == 3


def test_a_check_is_remembered_with_its_age(store: AlertStore) -> None:
    assert store.check("audit") is None
    store.note_check("audit", ok=False, text="row 7")
    store.note_check("audit", ok=True)
    check = store.check("audit")
    assert check is not None
    assert (check.ok, check.text) == (True, "")
    assert 0 <= check.age < 60
