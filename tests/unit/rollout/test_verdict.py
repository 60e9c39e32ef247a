"""Each kind of fault has its verdict, and nothing that was not measured ever promotes."""

from __future__ import annotations

from dataclasses import fields, replace
from math import inf, nan
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perennial.domain.words import RolloutAction
from perennial.rollout.machine import Plan
from perennial.rollout.verdict import NOTHING, ArmStats, judge, judge_bake

PLAN = Plan(
    steps=(0.05, 0.5, 1.0), min_samples=20, step_seconds=5, max_hold_seconds=600, bake_seconds=60, latency_slack_ms=5
)
CHAMPION = ArmStats(answers=400, errors=2, p50_ms=9, p95_ms=14, outcomes=300, correct_sum=255)
SOUND = ArmStats(answers=40, p50_ms=10, p95_ms=16, outcomes=30, correct_sum=26)
PROMOTE, HOLD, ROLLBACK = RolloutAction.PROMOTE, RolloutAction.HOLD, RolloutAction.ROLLBACK


def _candidate(**changes: Any) -> ArmStats:
    return replace(SOUND, **changes)


TABLE = [
    ("sound", SOUND, 6, PROMOTE, "hold"),
    ("sound, proven by shadow alone", _candidate(outcomes=0, correct_sum=0, agreement=0.9), 6, PROMOTE, "hold"),
    ("no answer", NOTHING, 6, HOLD, "0 answers"),
    ("no answer for long", NOTHING, 601, ROLLBACK, "no verdict in 600 s"),
    ("too few answers", _candidate(answers=19, outcomes=15, correct_sum=13), 6, HOLD, "19 answers of 20"),
    ("too few for long", _candidate(answers=19, outcomes=15, correct_sum=13), 600, ROLLBACK, "19 answers of 20"),
    ("too early", SOUND, 1, HOLD, "5 s at least"),
    ("all fail", ArmStats(answers=5, errors=5, trailing_errors=5), 0.2, ROLLBACK, "last 5 answers failed"),
    ("a quarter fails", _candidate(errors=10), 6, ROLLBACK, "25.0% of 40"),
    ("one failure, too early to tell", _candidate(errors=1), 6, HOLD, "2.5% of 40"),
    ("few failures of many", _candidate(answers=400, errors=4), 6, PROMOTE, "hold"),
    ("five times slower", _candidate(p50_ms=50, p95_ms=70), 6, ROLLBACK, "median latency 50 ms"),
    ("slow tail, few answers", _candidate(p95_ms=90), 6, HOLD, "95th percentile"),
    ("slow tail, many answers", _candidate(answers=200, p95_ms=90), 6, ROLLBACK, "95th percentile"),
    ("slower by less than noise", _candidate(p50_ms=13, p95_ms=19), 6, PROMOTE, "hold"),
    ("no latency", _candidate(p50_ms=None, p95_ms=None), 6, HOLD, "no latency"),
    ("wrong answers", _candidate(correct_sum=3), 6, ROLLBACK, "right on 10.0% of 30"),
    ("a little worse, too few to tell", _candidate(correct_sum=23), 6, HOLD, "too few to tell"),
    ("a little worse for long", _candidate(outcomes=300, answers=400, correct_sum=225), 600, ROLLBACK, "75.0% of 300"),
    ("worse by less than allowed", _candidate(outcomes=30, correct_sum=24.5), 6, PROMOTE, "hold"),
    ("nothing says how good", _candidate(outcomes=0, correct_sum=0), 6, HOLD, "nothing says how good"),
    ("few outcomes, no shadow", _candidate(outcomes=9, correct_sum=9), 6, HOLD, "nothing says how good"),
    ("contradicts the champion", _candidate(outcomes=0, correct_sum=0, agreement=0.1), 6, HOLD, "must prove it"),
    ("contradicts and is better", _candidate(agreement=0.1, correct_sum=29), 6, PROMOTE, "hold"),
    ("latency is not a number", _candidate(p50_ms=nan), 6, ROLLBACK, "not numbers"),
    ("quality is not a number", _candidate(correct_sum=nan), 6, ROLLBACK, "not numbers"),
    ("more errors than answers", _candidate(errors=41), 6, ROLLBACK, "not numbers"),
    ("time is not a number", SOUND, nan, HOLD, "time on this step"),
]  # fmt: skip


@pytest.mark.req("K37", "K39", "K40", "J93", "J95")
@pytest.mark.parametrize(("name", "candidate", "elapsed", "action", "says"), TABLE, ids=[row[0] for row in TABLE])
def test_the_table_of_verdicts(
    name: str, candidate: ArmStats, elapsed: float, action: RolloutAction, says: str
) -> None:
    verdict = judge(PLAN, CHAMPION, candidate, elapsed=elapsed)
    assert (verdict.action, says in verdict.reason) == (action, True), verdict


def test_a_champion_without_numbers_holds_and_is_never_a_reason_to_promote() -> None:
    for champion in (NOTHING, replace(CHAMPION, p50_ms=nan), replace(CHAMPION, correct_sum=inf)):
        assert judge(PLAN, champion, SOUND, elapsed=6).action is HOLD
        assert judge(PLAN, champion, SOUND, elapsed=600).action is ROLLBACK


def test_a_first_version_has_nobody_to_be_compared_with() -> None:
    assert judge(PLAN, None, SOUND, elapsed=6).action is PROMOTE
    assert judge(PLAN, None, NOTHING, elapsed=6).action is HOLD


def test_a_step_needs_answers_of_its_own() -> None:
    assert judge(PLAN, CHAMPION, SOUND, elapsed=6, step_answers=3).action is HOLD


def test_one_judgement_names_every_reason() -> None:
    verdict = judge(PLAN, CHAMPION, _candidate(errors=10, p50_ms=50, p95_ms=60, correct_sum=3), elapsed=6)
    assert verdict.action is ROLLBACK
    assert all(word in verdict.reason for word in ("failed", "median latency", "right on"))


@pytest.mark.req("K40")
def test_the_bake_reverts_what_a_long_good_past_would_hide() -> None:
    past = ArmStats(answers=9000, p50_ms=9, p95_ms=14, outcomes=6000, correct_sum=5100)
    recent = ArmStats(answers=60, p50_ms=9, p95_ms=14, outcomes=60, correct_sum=6)
    assert judge_bake(PLAN, CHAMPION, past, elapsed=30).action is HOLD
    assert judge_bake(PLAN, CHAMPION, past, elapsed=30, recent=recent).action is ROLLBACK


def test_the_bake_ends_with_enough_answers_and_never_without() -> None:
    assert judge_bake(PLAN, CHAMPION, SOUND, elapsed=61).action is PROMOTE
    assert judge_bake(PLAN, CHAMPION, SOUND, elapsed=59).action is HOLD
    assert judge_bake(PLAN, CHAMPION, NOTHING, elapsed=1e9).action is HOLD
    assert judge_bake(PLAN, CHAMPION, SOUND, elapsed=nan).action is HOLD
    assert judge_bake(PLAN, CHAMPION, _candidate(correct_sum=3), elapsed=3).action is ROLLBACK


_number = st.one_of(st.floats(), st.sampled_from([nan, inf, -inf, -1.0, 0.0, 1e16, 1e155, 1e308]))


@given(
    st.fixed_dictionaries({field.name: _number for field in fields(ArmStats)}),
    st.fixed_dictionaries({field.name: _number for field in fields(ArmStats)}),
    _number,
)
@settings(max_examples=400, deadline=None)
def test_no_numbers_whatever_crash_it_or_slip_through(
    champion: dict[str, Any], candidate: dict[str, Any], elapsed: float
) -> None:
    import json

    first, second = ArmStats(**champion), ArmStats(**candidate)
    for verdict in (judge(PLAN, first, second, elapsed=elapsed), judge_bake(PLAN, first, second, elapsed=elapsed)):
        json.dumps(verdict.evidence, allow_nan=False)
        if verdict.action is PROMOTE:
            assert first.sound
            assert second.sound
            assert second.answers >= PLAN.min_samples
