"""Both stores of rollouts keep one contract: PostgreSQL, and the twin in memory that other tests rely on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from perennial.domain.words import Arm, Parked, ReportKind, ReportResult, RolloutAction, RolloutState
from perennial.errors import RolloutError, StoreUnavailable
from perennial.rollout.machine import Plan
from perennial.rollout.memory import MemoryRollouts
from perennial.rollout.rows import Answered, ErrorRate, GatewayRow, Outcome, RecentInput, Report
from perennial.rollout.store import PostgresRollouts, RolloutStore
from perennial.serving.memory import MemoryServing
from perennial.serving.store import PostgresServing, Recorded, ServingStore
from perennial.storage.database import Database as Pool

PLAN = Plan(steps=(0.05, 0.5, 1.0))


@pytest.fixture(params=["memory", "postgres"])
def stores(request: pytest.FixtureRequest) -> Iterator[tuple[RolloutStore, ServingStore]]:
    if request.param == "memory":
        rollouts = MemoryRollouts()
        yield rollouts, MemoryServing(rollouts)
        return
    pool = Pool(request.getfixturevalue("database").app)
    yield PostgresRollouts(pool), PostgresServing(pool)
    pool.close()


def _champion(rollouts: RolloutStore, version: str) -> int:
    row = rollouts.open(agent="scout", version=version, plan=PLAN, run_id=f"run-{version}")
    rollouts.promote_full(row.id, actor="test", reason="for the test")
    return row.id


@pytest.mark.req("K39", "J91", "J6")
def test_a_rollout_from_open_to_done(stores: tuple[RolloutStore, ServingStore]) -> None:
    rollouts, _ = stores
    first = _champion(rollouts, "1.0.0")
    assert rollouts.serving("scout").champion == "1.0.0"
    row = rollouts.open(agent="scout", version="1.0.1", plan=PLAN, run_id="run")
    assert rollouts.open(agent="scout", version="1.0.1", plan=PLAN, run_id="run") == row
    assert (row.previous, row.plan, row.state) == ("1.0.0", PLAN, RolloutState.PENDING)
    serving = rollouts.serving("scout")
    assert (serving.candidate, serving.weight, serving.rollout_id) == ("1.0.1", 0.0, row.id)
    assert rollouts.begin_shadow(row.id).state is RolloutState.SHADOW
    epoch = serving.epoch
    for step, weight in enumerate(PLAN.shares):
        again = [rollouts.set_step(row.id, step=step, weight=weight, actor="test") for _ in range(2)]
        assert again[0] == again[1]
        assert rollouts.serving("scout").weight == pytest.approx(weight)
        assert rollouts.serving("scout").epoch == epoch + step + 1
    full = [rollouts.promote_full(row.id, actor="test", reason="well") for _ in range(2)]
    assert full[0] == full[1]
    assert full[0].full_at is not None
    serving = rollouts.serving("scout")
    assert (serving.champion, serving.previous, serving.candidate, serving.weight) == ("1.0.1", "1.0.0", None, 0.0)
    assert [item.version for item in rollouts.baking()] == ["1.0.1"]
    assert rollouts.get(first).state is RolloutState.SUPERSEDED  # a newer champion ends the older bake
    assert rollouts.close(row.id).state is RolloutState.DONE
    assert rollouts.baking() == []
    assert rollouts.latest("scout") == rollouts.of_run("scout", "run") == rollouts.get(row.id)
    assert rollouts.previous_champion("scout") == "1.0.0"


def test_runs_of_two_agents_may_bear_one_id_and_each_has_its_own_rollout(
    stores: tuple[RolloutStore, ServingStore],
) -> None:
    rollouts, _ = stores
    opened = {
        agent: rollouts.open(agent=agent, version="1.0.0", plan=PLAN, run_id="release-2026-11-21")
        for agent in ("scout", "desk")
    }
    for agent, row in opened.items():
        assert row.agent == agent
        assert rollouts.of_run(agent, "release-2026-11-21") == row
        assert rollouts.serving(agent).rollout_id == row.id


@pytest.mark.req("K40", "J49")
def test_a_reverted_canary_leaves_the_champion_alone(stores: tuple[RolloutStore, ServingStore]) -> None:
    rollouts, _ = stores
    _champion(rollouts, "1.0.0")
    row = rollouts.open(agent="scout", version="1.0.1", plan=PLAN, run_id="run")
    rollouts.set_step(row.id, step=0, weight=0.05, actor="test")
    back = [rollouts.revert(row.id, reason="fell", actor="test") for _ in range(2)]
    assert back[0] == back[1]
    assert (back[0].state, back[0].reason, back[0].weight) == (RolloutState.REVERTED, "fell", 0.0)
    serving = rollouts.serving("scout")
    assert (serving.champion, serving.candidate, serving.weight) == ("1.0.0", None, 0.0)
    with pytest.raises(RolloutError, match="reverted"):
        rollouts.set_step(row.id, step=1, weight=0.5, actor="test")
    with pytest.raises(RolloutError, match="reverted"):
        rollouts.promote_full(row.id, actor="test", reason="well")


@pytest.mark.req("K40", "J91")
def test_a_bad_bake_puts_the_predecessor_back(stores: tuple[RolloutStore, ServingStore]) -> None:
    rollouts, _ = stores
    _champion(rollouts, "1.0.0")
    _champion(rollouts, "1.0.1")
    bad = _champion(rollouts, "1.0.2")
    rollouts.revert(bad, reason="production disagrees", actor="watch")
    serving = rollouts.serving("scout")
    assert (serving.champion, serving.previous) == ("1.0.1", "1.0.0")  # never back to a version that was reverted
    assert rollouts.previous_champion("scout") == "1.0.0"


def test_a_bake_that_ends_badly_leaves_a_newer_canary_alone(stores: tuple[RolloutStore, ServingStore]) -> None:
    rollouts, _ = stores
    _champion(rollouts, "1.0.0")
    bad = _champion(rollouts, "1.0.1")
    newer = rollouts.open(agent="scout", version="1.0.2", plan=PLAN, run_id="newer")
    rollouts.set_step(newer.id, step=0, weight=0.05, actor="test")
    rollouts.revert(bad, reason="fell", actor="watch")
    serving = rollouts.serving("scout")
    assert (serving.champion, serving.candidate, serving.weight) == ("1.0.0", "1.0.2", pytest.approx(0.05))


@pytest.mark.req("K40", "J91")
def test_a_bake_that_was_cut_short_goes_on_and_the_predecessor_is_what_was_replaced(
    stores: tuple[RolloutStore, ServingStore],
) -> None:
    rollouts, _ = stores
    rollouts.close(_champion(rollouts, "1.0.0"))
    bad = _champion(rollouts, "1.0.1")
    newer = rollouts.open(agent="scout", version="1.0.2", plan=PLAN, run_id="newer")
    rollouts.set_step(newer.id, step=0, weight=0.05, actor="test")
    before = rollouts.get(newer.id)
    rollouts.revert(bad, reason="fell", actor="watch")
    anew = rollouts.get(newer.id)
    assert (anew.state, anew.step, anew.weight, anew.previous) == (RolloutState.CANARY, 0, before.weight, "1.0.1")
    assert anew.step_at > before.step_at
    full = rollouts.promote_full(newer.id, actor="test", reason="well")
    assert (full.previous, rollouts.get(newer.id).previous, rollouts.serving("scout").previous) == ("1.0.0",) * 3
    last = _champion(rollouts, "1.0.3")
    cut = rollouts.get(newer.id)
    assert (cut.state, rollouts.baking()) == (RolloutState.SUPERSEDED, [rollouts.get(last)])
    rollouts.revert(last, reason="fell too", actor="watch")
    again = rollouts.get(newer.id)
    assert (again.state, again.full_at, again.ended_at, again.reason) == (RolloutState.BAKING, cut.full_at, None, "")
    assert (again.weight, rollouts.baking()) == (1.0, [again])
    assert 0 <= rollouts.seconds_since_full(newer.id) <= rollouts.seconds_on_step(newer.id) + 1
    assert (rollouts.serving("scout").champion, rollouts.serving("scout").previous) == ("1.0.2", "1.0.0")
    rollouts.revert(newer.id, reason="and this one", actor="watch")
    assert rollouts.serving("scout").champion == "1.0.0"


@pytest.mark.req("K40", "J91")
def test_a_version_that_a_person_put_back_is_sound_again_until_it_is_taken_back_once_more(
    stores: tuple[RolloutStore, ServingStore],
) -> None:
    rollouts, _ = stores
    for version in ("1.0.0", "1.0.1"):
        rollouts.close(_champion(rollouts, version))
    rollouts.rollback("scout", "1.0.0", actor="jane", reason="it looks odd")
    rollouts.rollback("scout", "1.0.1", actor="jane", reason="it was fine after all")
    bad = _champion(rollouts, "1.0.2")
    assert rollouts.get(bad).previous == "1.0.1"
    rollouts.revert(bad, reason="every answer fails", actor="perennial")
    assert rollouts.serving("scout").champion == "1.0.1"
    first = rollouts.of_version("scout", "1.0.1")[-1]
    rollouts.rollback("scout", "1.0.0", actor="jane", reason="odd it is")
    last = rollouts.of_version("scout", "1.0.1")[-1]
    assert (last.state, last.reason) == (RolloutState.REVERTED, "odd it is")
    assert first.ended_at is not None
    assert last.ended_at is not None
    assert last.ended_at > first.ended_at
    rollouts.revert(_champion(rollouts, "1.0.3"), reason="it fails too", actor="perennial")
    assert rollouts.serving("scout").champion == "1.0.0"


def test_a_first_champion_cannot_be_reverted_to_nothing(stores: tuple[RolloutStore, ServingStore]) -> None:
    rollouts, _ = stores
    first = _champion(rollouts, "1.0.0")
    with pytest.raises(RolloutError, match="no predecessor"):
        rollouts.revert(first, reason="fell", actor="watch")
    assert rollouts.serving("scout").champion == "1.0.0"
    assert rollouts.get(first).state is RolloutState.BAKING


def test_a_newer_candidate_supersedes_and_an_older_one_is_refused(stores: tuple[RolloutStore, ServingStore]) -> None:
    rollouts, _ = stores
    _champion(rollouts, "1.0.0")
    old = rollouts.open(agent="scout", version="1.0.1", plan=PLAN, run_id="old")
    rollouts.set_step(old.id, step=0, weight=0.05, actor="test")
    new = rollouts.open(agent="scout", version="1.0.2", plan=PLAN, run_id="new")
    assert rollouts.get(old.id).state is RolloutState.SUPERSEDED
    assert rollouts.serving("scout").weight == 0.0
    for late in (
        lambda: rollouts.set_step(old.id, step=1, weight=0.5, actor="test"),
        lambda: rollouts.promote_full(old.id, actor="test", reason="late"),
        lambda: rollouts.revert(old.id, reason="late", actor="test"),
        lambda: rollouts.open(agent="scout", version="1.0.1", plan=PLAN, run_id="late"),
        lambda: rollouts.open(agent="scout", version="1.0.0", plan=PLAN, run_id="serves already"),
        lambda: rollouts.open(agent="scout", version="latest", plan=PLAN, run_id="no version"),
    ):
        with pytest.raises(RolloutError):
            late()
    assert rollouts.serving("scout").candidate == "1.0.2"
    assert rollouts.get(new.id).state is RolloutState.PENDING


def test_a_step_must_be_the_plans(stores: tuple[RolloutStore, ServingStore]) -> None:
    rollouts, _ = stores
    row = rollouts.open(agent="scout", version="1.0.0", plan=PLAN, run_id="run")
    for step, weight in ((0, 0.9), (1, 0.5), (7, 0.5), (-1, 0.05)):
        with pytest.raises(RolloutError):
            rollouts.set_step(row.id, step=step, weight=weight, actor="test")
    assert rollouts.serving("scout").weight == 0.0


@pytest.mark.req("J91", "S24")
def test_a_person_rolls_back(stores: tuple[RolloutStore, ServingStore]) -> None:
    rollouts, _ = stores
    for version in ("1.0.0", "1.0.1", "1.0.2"):
        last = _champion(rollouts, version)
    rollouts.close(last)
    canary = rollouts.open(agent="scout", version="1.0.3", plan=PLAN, run_id="canary")
    serving = rollouts.rollback("scout", "1.0.0", actor="ana", reason="complaints")
    assert (serving.champion, serving.previous, serving.candidate, serving.weight) == ("1.0.0", None, None, 0.0)
    assert rollouts.get(last).state is RolloutState.REVERTED
    assert rollouts.get(canary.id).state is RolloutState.REVERTED
    for version in ("1.0.0", "1.0.3", "9.9.9"):  # serves already, never was champion, does not exist
        with pytest.raises(RolloutError):
            rollouts.rollback("scout", version, actor="ana", reason="again")
    assert rollouts.rollback("scout", "1.0.1", actor="ana", reason="forward").champion == "1.0.1"


def _answer(serving: ServingStore, text: str = "some text", **changes: Any) -> Answered:
    answer = Answered(
        prediction_id=uuid4(), agent="scout", task="topic", version="1.0.0", arm=Arm.CHAMPION, input_digest=b"x",
        output="sports", confidence=0.9, latency_ms=10.0,
    )  # fmt: skip
    answer = replace(answer, **changes)
    serving.record([Recorded(answer=answer, text=text)])
    return answer


@pytest.mark.req("K37")
def test_stats_count_what_was_recorded(stores: tuple[RolloutStore, ServingStore]) -> None:
    rollouts, serving = stores
    row = rollouts.open(agent="scout", version="1.0.0", plan=PLAN, run_id="run")
    empty = rollouts.stats("scout", "1.0.0", since=None)
    assert (empty.answers, empty.outcomes, empty.p50_ms, empty.quality, empty.agreement) == (0, 0, None, None, None)
    answers = [_answer(serving, latency_ms=float(ms)) for ms in (10, 20, 30, 40, 50)]
    for _ in range(3):
        _answer(serving, error="RuntimeError", output=None, confidence=None)
    _answer(serving, version="9.0.0")
    _answer(serving, arm=Arm.SHADOW)
    for answer, right in zip(answers, (1.0, 1.0, 0.0), strict=False):
        outcome = Outcome(
            prediction_id=answer.prediction_id, agent="scout", task="topic", version="1.0.0", arm=Arm.CHAMPION,
            actual="sports", correct=right,
        )  # fmt: skip
        assert serving.tell([outcome]) == [True]
    rollouts.look(row.id, action=RolloutAction.PROMOTE, reason="shadow", evidence={"agreement": 0.75})
    rollouts.look(row.id, action=RolloutAction.HOLD, reason="few", evidence={"other": 1})
    stats = rollouts.stats("scout", "1.0.0", since=row.started_at)
    assert (stats.answers, stats.errors, stats.trailing_errors) == (8, 3, 3)
    assert (stats.p50_ms, stats.p95_ms) == (pytest.approx(30), pytest.approx(48))
    assert (stats.outcomes, stats.correct_sum, stats.agreement) == (3, pytest.approx(2.0), 0.75)
    assert stats.sound
    newest = rollouts.stats("scout", "1.0.0", since=None, last=4)
    assert (newest.answers, newest.errors) == (4, 3)
    assert [look["reason"] for look in rollouts.looks(row.id)] == ["shadow", "few"]
    assert rollouts.looks(row.id)[0]["evidence"] == {"agreement": 0.75}


@pytest.mark.req("J36")
def test_error_rates_by_task_worst_first(stores: tuple[RolloutStore, ServingStore]) -> None:
    rollouts, serving = stores
    assert rollouts.error_rates("scout", "1.0.0") == []
    for task, correct in (("topic", 1.0), ("topic", 0.0), ("quality", 0.25), ("topic", 1.0), ("topic", 1.0)):
        answer = _answer(serving, task=task)
        serving.tell([Outcome(
            prediction_id=answer.prediction_id, agent="scout", task=task, version="1.0.0", arm=Arm.CHAMPION,
            actual="sports", correct=correct,
        )])  # fmt: skip
    assert rollouts.error_rates("scout", "1.0.0") == [
        ErrorRate(task="quality", judged=1, rate=0.75), ErrorRate(task="topic", judged=4, rate=0.25)
    ]  # fmt: skip
    assert rollouts.error_rates("scout", "1.0.0", last=2) == [ErrorRate(task="topic", judged=2, rate=0.0)]


def test_recent_inputs_come_newest_first_and_only_of_answers(stores: tuple[RolloutStore, ServingStore]) -> None:
    rollouts, serving = stores
    for number in range(4):
        _answer(serving, text=f"text {number}", task=f"task{number}")
    assert rollouts.recent_inputs("scout", 2) == [
        RecentInput(task="task3", text="text 3"), RecentInput(task="task2", text="text 2")
    ]  # fmt: skip
    assert rollouts.recent_inputs("analyst", 2) == []


def test_a_refusal_of_a_gateway_is_found_by_version(stores: tuple[RolloutStore, ServingStore]) -> None:
    rollouts, serving = stores
    beat = GatewayRow(
        instance="g1", agent="scout", champion="1.0.0", previous=None, candidate=None, weight=0.0, epoch=3,
        error="1.0.2 cannot be loaded yet: StoreUnavailable\n1.0.1 refused: the signature does not match",
    )  # fmt: skip
    serving.heartbeat([beat])
    assert rollouts.gateway_error("scout", "1.0.1") == "g1: 1.0.1 refused: the signature does not match"
    assert rollouts.gateway_error("scout", "1.0.2") is None
    assert rollouts.gateway_error("scout", "1.0.10") is None
    serving.heartbeat([replace(beat, error=None)])
    assert rollouts.gateway_error("scout", "1.0.1") is None
    (seen,) = rollouts.gateways("scout")
    assert (seen.instance, seen.champion, seen.epoch) == ("g1", "1.0.0", 3)


def test_seconds_are_on_the_stores_clock(stores: tuple[RolloutStore, ServingStore]) -> None:
    rollouts, _ = stores
    row = rollouts.open(agent="scout", version="1.0.0", plan=PLAN, run_id="run")
    assert 0 <= rollouts.seconds_on_step(row.id) < 5
    assert rollouts.seconds_since_full(row.id) == 0.0
    rollouts.promote_full(row.id, actor="test", reason="well")
    assert 0 <= rollouts.seconds_since_full(row.id) < 5
    with pytest.raises(RolloutError, match="no rollout"):
        rollouts.get(4711)


@pytest.mark.req("K37", "J93")
def test_quality_by_label_and_outcomes_of_answers_that_are_too_young(
    stores: tuple[RolloutStore, ServingStore],
) -> None:
    rollouts, serving = stores
    rollouts.open(agent="scout", version="1.0.0", plan=PLAN, run_id="run")
    for label, right in (("sports", 1.0), ("sports", 0.0), ("world", 1.0), (0.5, 0.75), ("x" * 101, 1.0)):
        answer = _answer(serving)
        serving.tell([Outcome(
            prediction_id=answer.prediction_id, agent="scout", task="topic", version="1.0.0", arm=Arm.CHAMPION,
            actual=label, correct=right,
        )])  # fmt: skip
    found = rollouts.slices("scout", "1.0.0", since=None)
    assert {name: (one.outcomes, one.correct_sum) for name, one in found.items()} == {
        "topic: sports": (2, pytest.approx(1.0)), "topic: world": (1, pytest.approx(1.0))
    }  # fmt: skip
    assert rollouts.slices("scout", "1.0.0", since=rollouts.now()) == {}
    assert sum(one.outcomes for one in rollouts.slices("scout", "1.0.0", since=None, last=2).values()) == 2
    assert rollouts.slices("scout", "1.0.0", since=None, label_delay=60.0) == {}
    assert rollouts.stats("scout", "1.0.0", since=None).outcomes == 5
    young = rollouts.stats("scout", "1.0.0", since=None, label_delay=60.0)
    assert (young.answers, young.outcomes) == (5, 0)  # answers count at once, their outcomes once they are old enough


def test_a_parked_rollout_is_found_keeps_its_share_and_ends_like_any_other(
    stores: tuple[RolloutStore, ServingStore],
) -> None:
    rollouts, _ = stores
    done = _champion(rollouts, "1.0.0")
    row = rollouts.open(agent="scout", version="1.0.1", plan=PLAN, run_id="run")
    rollouts.set_step(row.id, step=0, weight=0.05, actor="test")
    epoch = rollouts.serving("scout").epoch
    for _ in range(2):
        parked = rollouts.park(row.id, Parked.ASK, "too little traffic")
    assert (parked.parked, parked.state, parked.reason) == (Parked.ASK, RolloutState.CANARY, "too little traffic")
    assert [one.id for one in rollouts.parked()] == [row.id]
    assert (rollouts.serving("scout").weight, rollouts.serving("scout").epoch) == (pytest.approx(0.05), epoch)
    assert rollouts.set_step(row.id, step=1, weight=0.5, actor="test").parked is Parked.ASK  # still no run's
    assert [one.version for one in rollouts.recent("scout")] == ["1.0.1", "1.0.0"]
    assert rollouts.reverted_lately(60.0) == []
    assert rollouts.revert(row.id, reason="fell", actor="test").parked is None
    assert rollouts.parked() == []
    assert [one.id for one in rollouts.reverted_lately(60.0)] == [row.id]
    assert rollouts.reverted_lately(0.0) == []
    for ended in (row.id, done):
        with pytest.raises(RolloutError, match="only an open rollout can wait"):
            rollouts.park(ended, Parked.FREEZE, "late")


@pytest.mark.req("K39", "K40")
def test_a_revert_of_what_was_seen_leaves_alone_what_moved_since(
    stores: tuple[RolloutStore, ServingStore],
) -> None:
    rollouts, _ = stores
    _champion(rollouts, "1.0.0")
    seen = [rollouts.open(agent="scout", version="1.0.1", plan=PLAN, run_id="run")]
    seen += [rollouts.begin_shadow(seen[0].id), rollouts.set_step(seen[0].id, step=0, weight=0.05, actor="test")]
    assert rollouts.running() == seen[-1:]
    seen.append(rollouts.park(seen[0].id, Parked.ASK, "too little traffic"))
    assert rollouts.running() == []
    for stale in seen[:-1]:
        assert rollouts.revert(stale.id, reason="gone", actor="test", seen=stale) == seen[-1]
    assert rollouts.serving("scout").candidate == "1.0.1"
    back = [rollouts.revert(seen[0].id, reason="gone", actor="test", seen=seen[-1]) for _ in range(2)]
    assert (back[0].state, back[0].reason) == (RolloutState.REVERTED, "gone")
    assert back[0] == back[1]
    assert rollouts.serving("scout").candidate is None


@pytest.mark.req("J94")
def test_reports_count_people_and_each_report_once(stores: tuple[RolloutStore, ServingStore]) -> None:
    rollouts, serving = stores
    _champion(rollouts, "1.0.0")
    answer = _answer(serving)

    def report(who: bytes, **about: Any) -> Report:
        return Report(report_id=uuid4(), agent="scout", kind=ReportKind.WRONG, reporter=who, **about)

    first = report(b"ana", prediction_id=answer.prediction_id)
    assert [rollouts.report(first) for _ in range(2)] == [ReportResult.ADDED, ReportResult.DUPLICATE]
    for who in (b"ana", b"bo", b"bo"):
        assert rollouts.report(report(who, version="1.0.0")) is ReportResult.ADDED
    assert rollouts.reporters("scout", "1.0.0", within=60.0) == 2
    assert rollouts.reporters("scout", "1.0.0", within=0.0) == 0
    assert rollouts.reporters("scout", "1.0.1", within=60.0) == 0
    early = report(b"dee", prediction_id=uuid4(), version="1.0.0")  # its answer is not written down yet
    late = report(b"dee", prediction_id=answer.prediction_id, version="1.0.0")  # and this one is by now
    assert [rollouts.report(one) for one in (early, early, late)] == [
        ReportResult.ADDED, ReportResult.DUPLICATE, ReportResult.ADDED
    ]  # fmt: skip
    assert rollouts.reporters("scout", "1.0.0", within=60.0) == 3
    for unknown in (
        report(b"cy", version="9.9.9"), report(b"cy", prediction_id=uuid4()),
        replace(report(b"cy", version="1.0.0"), agent="analyst"),
        replace(report(b"cy", prediction_id=answer.prediction_id), agent="analyst"),
    ):  # fmt: skip
        assert rollouts.report(unknown) is ReportResult.UNKNOWN


def test_a_reset_of_the_breaker_is_remembered(stores: tuple[RolloutStore, ServingStore]) -> None:
    rollouts, _ = stores
    assert rollouts.breaker_reset("scout") is None
    before = rollouts.now()
    rollouts.reset_breaker("scout", actor="ana", reason="repaired")
    at = rollouts.breaker_reset("scout")
    assert at is not None
    assert before <= at <= rollouts.now()
    assert rollouts.breaker_reset("analyst") is None


@pytest.mark.req("K31", "D10")
def test_alias_moves_tell_what_served_and_why(database: Any) -> None:
    pool = Pool(database.app)
    rollouts = PostgresRollouts(pool)
    _champion(rollouts, "1.0.0")
    bad = _champion(rollouts, "1.0.1")
    for _ in range(2):
        rollouts.revert(bad, reason="fell", actor="watch")
    with psycopg.connect(database.app) as connection:
        moves = connection.execute(
            "SELECT alias, version, actor, reason FROM perennial.alias_moves ORDER BY id"
        ).fetchall()
    assert [move[1] for move in moves if move[0] == "champion"] == ["1.0.0", "1.0.1", "1.0.0"]
    assert [move[1] for move in moves if move[0] == "candidate"] == ["1.0.0", None, "1.0.1", None]
    assert moves[-1][2:] == ("watch", "fell")
    pool.close()


@pytest.mark.req("J33")
def test_gateways_are_told_in_the_same_transaction(database: Any) -> None:
    pool = Pool(database.app)
    with psycopg.connect(database.app, autocommit=True) as listener:
        listener.execute("LISTEN perennial_serving")
        PostgresRollouts(pool).open(agent="scout", version="1.0.0", plan=PLAN, run_id="run")
        told = next(listener.notifies(timeout=5, stop_after=1))
    assert told.payload == "scout"
    pool.close()


@pytest.mark.req("D10")
def test_twenty_tasks_at_once_make_one_champion(database: Any) -> None:
    pool = Pool(database.app, max_size=12)
    rollouts = PostgresRollouts(pool)
    _champion(rollouts, "1.0.0")
    row = rollouts.open(agent="scout", version="1.0.1", plan=PLAN, run_id="run")
    errors: list[str] = []

    def work(number: int) -> None:
        try:
            if number % 2:
                rollouts.promote_full(row.id, actor="test", reason="well")
            else:
                rollouts.revert(row.id, reason="fell", actor="test")
        except RolloutError as error:
            errors.append(str(error))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ended, serving = rollouts.get(row.id), rollouts.serving("scout")
    assert ended.state is RolloutState.REVERTED  # a revert wins from every state
    assert (serving.champion, serving.candidate, serving.weight) == ("1.0.0", None, 0.0)
    with psycopg.connect(database.app) as connection:
        moves = connection.execute(
            "SELECT version FROM perennial.alias_moves WHERE alias = 'champion' ORDER BY id"
        ).fetchall()
    assert [move[0] for move in moves] in (["1.0.0"], ["1.0.0", "1.0.1", "1.0.0"])
    pool.close()


def test_with_postgresql_away_it_says_so_and_changes_nothing() -> None:
    pool = Pool("postgresql://perennial_app:x@127.0.0.1:1/none?connect_timeout=1", wait_seconds=0.3)
    with pytest.raises(StoreUnavailable):
        PostgresRollouts(pool).serving("scout")
    pool.close()


@pytest.mark.req("K3")
def test_every_change_of_the_share_is_kept_with_its_time(stores: tuple[RolloutStore, ServingStore]) -> None:
    rollouts, _ = stores
    _champion(rollouts, "1.0.0")
    row = rollouts.open(agent="scout", version="1.0.1", plan=PLAN, run_id="run")
    rollouts.begin_shadow(row.id)
    for step, weight in enumerate(PLAN.shares):
        rollouts.set_step(row.id, step=step, weight=weight, actor="test")
    rollouts.revert(row.id, reason="errors", actor="test")
    history = rollouts.serving_history("scout")
    assert [(move.champion, move.candidate, pytest.approx(move.weight)) for move in history] == [
        (None, "1.0.0", 0.0), ("1.0.0", None, 0.0), ("1.0.0", "1.0.1", 0.0), ("1.0.0", "1.0.1", 0.05),
        ("1.0.0", "1.0.1", 0.5), ("1.0.0", None, 0.0),
    ]  # fmt: skip
    assert [move.changed_at for move in history] == sorted(move.changed_at for move in history)
    assert rollouts.serving_history("analyst") == []
    assert [(one.version, one.state) for one in rollouts.of_version("scout", "1.0.1")] == [
        ("1.0.1", RolloutState.REVERTED)
    ]
    assert rollouts.of_version("scout", "7.0.0") == []
