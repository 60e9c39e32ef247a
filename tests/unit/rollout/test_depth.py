"""What decides when outcomes come late, when traffic does not come, when one label alone falls, and when people complain."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from perennial.domain.words import RolloutAction, TooLittleTraffic
from perennial.errors import InvalidExample
from perennial.fleet import Agent, Task
from perennial.rollout.breaker import Ended, pause
from perennial.rollout.freeze import Freeze, frozen
from perennial.rollout.machine import Plan
from perennial.rollout.reports import report_of
from perennial.rollout.slices import SliceStats
from perennial.rollout.verdict import NOTHING, ArmStats, Beside, judge, judge_bake
from tests.dags.fleet import Nothing

PLAN = Plan(steps=(0.05, 0.5, 1.0), min_samples=20, step_seconds=5, max_hold_seconds=600, bake_seconds=60)
CHAMPION = ArmStats(answers=400, errors=2, p50_ms=9, p95_ms=14, outcomes=300, correct_sum=255)
SOUND = ArmStats(answers=40, p50_ms=10, p95_ms=16, outcomes=30, correct_sum=26)
FEW = replace(SOUND, answers=12, outcomes=4, correct_sum=4.0, agreement=0.95)
PROMOTE, HOLD, ROLLBACK, ASK = RolloutAction.PROMOTE, RolloutAction.HOLD, RolloutAction.ROLLBACK, RolloutAction.ASK
PASSED = Beside(gates_passed=True)


def _plan(policy: TooLittleTraffic) -> Plan:
    return replace(PLAN, on_too_little_traffic=policy)


@pytest.mark.req("K39")
def test_a_plan_frozen_by_an_older_version_is_read_with_what_was_true_then() -> None:
    record = PLAN.as_record()
    for name in (
        "on_too_little_traffic",
        "label_delay_seconds",
        "max_slice_drop",
        "reports_revert",
        "reports_window_seconds",
    ):
        del record[name]
    old = Plan.from_record({**record, "gone_since": 1})
    assert old == PLAN
    assert old.on_too_little_traffic is TooLittleTraffic.REVERT
    asked = _plan(TooLittleTraffic.ASK)
    assert Plan.from_record(asked.as_record()) == asked


@pytest.mark.req("K39", "K40")
@pytest.mark.parametrize("candidate", [NOTHING, FEW])
def test_without_traffic_the_policy_decides_and_the_report_says_on_what(candidate: ArmStats) -> None:
    said = {
        policy: judge(_plan(policy), CHAMPION, candidate, elapsed=600, beside=PASSED) for policy in TooLittleTraffic
    }
    offline = PROMOTE if candidate is FEW else ROLLBACK  # nothing replayed: nothing to decide on
    assert [said[policy].action for policy in TooLittleTraffic] == [ROLLBACK, ASK, offline]
    assert all("no verdict in 600 s" in verdict.reason for verdict in said.values())
    assert "person" in said[TooLittleTraffic.ASK].evidence["decided_on"]
    assert "offline evidence" in said[TooLittleTraffic.OFFLINE].reason
    assert all(judge(_plan(policy), CHAMPION, candidate, elapsed=599).action is HOLD for policy in TooLittleTraffic)


@pytest.mark.parametrize(
    ("agreement", "passed", "says"),
    [(0.95, False, "no passed gate report"), (0.5, True, "agreed on 50%"), (None, True, "no shadow replay")],
)
def test_offline_evidence_that_is_missing_or_weak_reverts(agreement: float | None, passed: bool, says: str) -> None:
    weak = replace(FEW, agreement=agreement)
    verdict = judge(
        _plan(TooLittleTraffic.OFFLINE), CHAMPION, weak, elapsed=600, beside=Beside(gates_passed=passed)
    )  # fmt: skip
    assert (verdict.action, says in verdict.reason) == (ROLLBACK, True), verdict


@pytest.mark.parametrize("policy", TooLittleTraffic)
@pytest.mark.parametrize(
    "doubtful",
    [replace(SOUND, errors=1), replace(SOUND, p95_ms=900), replace(SOUND, agreement=0.1, outcomes=0, correct_sum=0)],
)
def test_what_looks_wrong_is_no_want_of_data_and_reverts_under_every_policy(
    policy: TooLittleTraffic, doubtful: ArmStats
) -> None:
    assert judge(_plan(policy), CHAMPION, doubtful, elapsed=600, beside=PASSED).action is ROLLBACK


@pytest.mark.req("J93")
def test_late_outcomes_are_waited_for_and_not_for_ever() -> None:
    late, none = replace(PLAN, label_delay_seconds=60), replace(SOUND, outcomes=0, correct_sum=0, agreement=0.9)
    assert judge(PLAN, CHAMPION, none, elapsed=6).action is PROMOTE
    held = judge(late, CHAMPION, none, elapsed=64)
    assert (held.action, held.reason) == (HOLD, "outcomes come after 60 s: 0 of 10")
    assert judge(late, CHAMPION, SOUND, elapsed=6).action is PROMOTE  # they are there
    after = judge(late, CHAMPION, none, elapsed=66)
    assert (after.action, "shadow replay alone" in after.reason) == (PROMOTE, True)
    day = replace(PLAN, label_delay_seconds=86_400)  # longer than patience: the bake judges them
    assert judge(day, CHAMPION, none, elapsed=6).action is PROMOTE
    assert judge_bake(day, CHAMPION, SOUND, elapsed=3600).action is HOLD
    assert judge_bake(day, CHAMPION, SOUND, elapsed=86_461).action is PROMOTE


@pytest.mark.req("K37", "K40")
def test_one_label_that_falls_reverts_in_canary_and_bake() -> None:
    before = {f"topic: {name}": SliceStats(outcomes=75, correct_sum=64) for name in ("sports", "world", "science")}
    fell = {
        **{name: SliceStats(outcomes=20, correct_sum=17) for name in before},
        "topic: sports": SliceStats(outcomes=20, correct_sum=4),
    }
    sick = Beside(champion=before, candidate=fell)
    recently = Beside(champion=before, candidate=before, recent=fell)
    for verdict in (
        judge(PLAN, CHAMPION, SOUND, elapsed=6, beside=sick),
        judge_bake(PLAN, CHAMPION, SOUND, elapsed=9, beside=sick),
        judge_bake(PLAN, CHAMPION, SOUND, elapsed=9, beside=recently),
    ):
        assert (verdict.action, "topic: sports" in verdict.reason) == (ROLLBACK, True)
    few = {"topic: sports": SliceStats(outcomes=9, correct_sum=0)}
    assert judge(PLAN, CHAMPION, SOUND, elapsed=6, beside=Beside(champion=before, candidate=few)).action is PROMOTE


@pytest.mark.req("J94")
def test_enough_people_revert_and_none_when_it_is_off() -> None:
    assert judge(PLAN, CHAMPION, SOUND, elapsed=6, beside=Beside(reporters=4)).action is PROMOTE
    verdict = judge(PLAN, CHAMPION, SOUND, elapsed=6, beside=Beside(reporters=5))
    assert (verdict.action, verdict.reason) == (ROLLBACK, "5 people reported it within 600 s")
    assert judge_bake(PLAN, CHAMPION, SOUND, elapsed=61, beside=Beside(reporters=5)).action is ROLLBACK
    off = replace(PLAN, reports_revert=0)
    assert judge(off, CHAMPION, SOUND, elapsed=6, beside=Beside(reporters=500)).action is PROMOTE


@pytest.mark.parametrize(
    ("at", "until"),
    [("2026-11-20T15:59", None), ("2026-11-20T16:00", "2026-11-23T08:00"), ("2026-11-22T23:59", "2026-11-23T08:00"),
     ("2026-11-23T08:00", None), ("2026-12-24T12:00", "2026-12-27T00:00"), ("2026-12-30T00:00", None)],
)  # fmt: skip
def test_freeze_windows_begin_and_end_on_their_minute(at: str, until: str | None) -> None:
    now = datetime.fromisoformat(at).replace(tzinfo=UTC)
    windows = ("Fri 16:00/Mon 08:00", "2026-12-24T12:00/2026-12-27")
    said = frozen(windows, now)
    assert (said is None) == (until is None)
    if until is not None and said is not None:
        assert said.startswith(f"frozen until {until.replace('T', ' ')} UTC")


@pytest.mark.parametrize(
    "text", ["Fri 16:00", "Fri 16:00/Fri 16:00", "Foo 16:00/Mon 08:00", "2026-12-27/2026-12-24", "a/b"]
)
def test_a_freeze_window_that_cannot_be_read_breaks_its_fleet_file_and_not_the_night(text: str) -> None:
    with pytest.raises(ValueError, match="freeze window"):
        Freeze.parse(text)
    with pytest.raises(ValueError, match="freeze window"):
        Agent(name="scout", owner="o", tasks=(Task(name="t"),), trainer=Nothing(), freeze=(text,))


def test_the_breaker_opens_after_refusals_in_a_row_and_closes_by_itself_or_by_hand() -> None:
    now = datetime(2026, 11, 21, 12, tzinfo=UTC)
    ends = [Ended(at=now - timedelta(hours=hour), refused=True, what="held") for hour in (5, 4, 3)]
    how: dict[str, Any] = {"refused": 3, "window_seconds": 6 * 3600.0}
    found = pause(ends, now=now, **how)
    assert found is not None
    assert found.until == now + timedelta(hours=3)
    assert "perennial rollout reset" in found.reason
    assert pause(ends[:2], now=now, **how) is None
    assert pause(ends, now=now + timedelta(hours=2), **how) is None  # the oldest left the window
    assert pause([*ends, Ended(at=now, refused=False, what="1.0.2 serves")], now=now, **how) is None
    assert pause(ends, now=now, reset=now - timedelta(hours=3), **how) is None
    assert pause(ends, now=now, refused=0, window_seconds=6 * 3600.0) is None


@pytest.mark.req("J94", "K68")
def test_a_report_holds_no_text_and_no_name() -> None:
    given = {
        "agent": "scout",
        "kind": "wrong",
        "reporter": "ana@example.org",
        "prediction_id": "5a4f9f9e-7e4d-4d5e-8f6f-2f1b2c3d4e5f",
    }
    report = report_of(given, key=b"k")
    assert b"ana" not in report.reporter
    assert report_of(given, key=b"k") == report  # a second click is the same report
    assert report_of({**given, "reporter": "bo"}, key=b"k").reporter != report.reporter
    assert report_of(given, key=b"other").reporter != report.reporter
    wrong = [
        {**given, "comment": "secret words"}, {**given, "kind": "ugly"}, {**given, "version": "1.0.0"},
        {**given, "prediction_id": "secret words"}, {"agent": "scout", "kind": "wrong"}, {**given, "reporter": ""},
    ]  # fmt: skip
    for one in wrong:
        with pytest.raises(InvalidExample) as refused:
            report_of(one, key=b"k")
        assert "secret words" not in str(refused.value)
