"""What may follow what, and that a repeated task changes nothing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from perennial.domain.verdict import RolloutVerdict
from perennial.domain.words import RolloutAction, RolloutState
from perennial.errors import RolloutError
from perennial.fleet.agent import Rollout
from perennial.rollout import machine
from perennial.rollout.machine import Plan

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PROMOTE = RolloutVerdict(action=RolloutAction.PROMOTE, reason="well")
HOLD = RolloutVerdict(action=RolloutAction.HOLD, reason="too few")
BACK = RolloutVerdict(action=RolloutAction.ROLLBACK, reason="fell")


def _at(state: RolloutState, plan: Plan | None = None) -> machine.RolloutStatus:
    plan, status = plan or Plan(), machine.begin(NOW)
    if state is RolloutState.SUPERSEDED:
        return machine.to_superseded(status, "newer", NOW)
    if state is RolloutState.REVERTED:
        return machine.to_reverted(status, "fell", NOW)
    while status.state is not state:
        status = machine.advance(status, plan, PROMOTE, NOW)
    return status


def test_the_plan_has_the_fields_of_an_agents_declaration() -> None:
    declared = Rollout()
    plan = Plan(**{name: getattr(declared, name) for name in Rollout.__slots__})
    assert plan == Plan()
    assert Plan.from_record(plan.as_record()) == plan


@pytest.mark.parametrize(
    "wrong",
    [{"steps": ()}, {"steps": (0.5, 0.25)}, {"steps": (0.0, 1.0)}, {"steps": (0.5, 1.5)}, {"min_samples": 0},
     {"max_error_rate": float("nan")}, {"bake_seconds": -1.0}, {"steps": (0.5, float("nan"))}],
)  # fmt: skip
def test_a_plan_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Plan(**wrong)


@pytest.mark.req("K39")
def test_promotion_goes_step_by_step_and_never_skips() -> None:
    status, seen = machine.begin(NOW), []
    for second in range(6):
        status = machine.advance(status, Plan(), PROMOTE, NOW + timedelta(seconds=second))
        seen.append((status.state, status.weight))
    assert [weight for _, weight in seen] == [0.0, 0.05, 0.25, 0.5, 1.0, 1.0]
    assert seen[-1][0] is RolloutState.DONE
    with pytest.raises(RolloutError):
        machine.to_step(_at(RolloutState.SHADOW), Plan(), 1, NOW)


@pytest.mark.parametrize("state", [RolloutState.PENDING, RolloutState.SHADOW, RolloutState.CANARY, RolloutState.BAKING])
def test_hold_changes_nothing_and_rollback_takes_all_traffic_away(state: RolloutState) -> None:
    status = _at(state)
    assert machine.advance(status, Plan(), HOLD, NOW) is status
    back = machine.advance(status, Plan(), BACK, NOW)
    assert (back.state, back.weight, back.reason) == (RolloutState.REVERTED, 0.0, "fell")


@pytest.mark.parametrize("state", [RolloutState.DONE, RolloutState.REVERTED, RolloutState.SUPERSEDED])
def test_an_ended_rollout_takes_no_verdict(state: RolloutState) -> None:
    with pytest.raises(RolloutError, match=state.value):
        machine.advance(_at(state), Plan(), PROMOTE, NOW)


@pytest.mark.req("D10")
def test_every_move_may_be_repeated() -> None:
    later = NOW + timedelta(hours=1)
    shadow, canary, baking = _at(RolloutState.SHADOW), _at(RolloutState.CANARY), _at(RolloutState.BAKING)
    assert machine.to_shadow(shadow, later) is shadow
    assert machine.to_step(canary, Plan(), 0, later) is canary
    assert machine.to_full(baking, later) is baking
    reverted = _at(RolloutState.REVERTED)
    assert machine.to_reverted(reverted, "another reason", later) is reverted


def test_a_superseded_rollout_can_never_serve() -> None:
    gone = _at(RolloutState.SUPERSEDED)
    for move in (
        lambda: machine.to_step(gone, Plan(), 0, NOW), lambda: machine.to_full(gone, NOW),
        lambda: machine.to_shadow(gone, NOW), lambda: machine.to_reverted(gone, "x", NOW),
    ):  # fmt: skip
        with pytest.raises(RolloutError, match="superseded"):
            move()


def test_without_a_shadow_the_first_step_comes_at_once() -> None:
    plan = Plan(shadow_requests=0, steps=(0.3, 1.0))
    assert machine.advance(machine.begin(NOW), plan, PROMOTE, NOW).weight == 0.3


def test_a_plan_of_one_step_serves_everything_after_the_shadow() -> None:
    plan = Plan(steps=(1.0,))
    assert machine.advance(_at(RolloutState.SHADOW, plan), plan, PROMOTE, NOW).state is RolloutState.BAKING
