"""The rollout as a pure state machine: what may follow what, and which share of the keys each step gets.

``pending -> shadow -> canary (step 0..n) -> baking -> done``; ``reverted`` and ``superseded`` end it early, but a bake that a
newer champion cut short goes on when that one is taken back. Stores call these functions under their lock, so the rules are the
same in memory and in PostgreSQL. Every move is idempotent: a task that is killed and run again finds its own move already made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime
from math import isfinite
from typing import Any

from perennial.domain.verdict import RolloutVerdict
from perennial.domain.words import RolloutAction, RolloutState, TooLittleTraffic
from perennial.errors import RolloutError

OPEN = frozenset({RolloutState.PENDING, RolloutState.SHADOW, RolloutState.CANARY})
ENDED = frozenset({RolloutState.DONE, RolloutState.REVERTED, RolloutState.SUPERSEDED})


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """How a candidate meets traffic, frozen into the rollout row at its start. Steps are shares of keys; seconds are
    wall time."""

    steps: tuple[float, ...] = (0.05, 0.25, 0.50, 1.0)
    min_samples: int = 20  # answers of the candidate before a verdict
    step_seconds: float = 5.0  # shortest time on a step
    max_hold_seconds: float = 600.0  # without a verdict after this, the rollout is reverted (or see the next line)
    on_too_little_traffic: TooLittleTraffic = TooLittleTraffic.REVERT
    max_error_rate: float = 0.02
    max_latency_ratio: float = 3.0
    latency_slack_ms: float = 50.0  # a smaller difference is never worth a rollback, whatever the ratio
    max_agreement_drop: float = 0.05  # how much less often than the champion it may agree with outcomes
    max_slice_drop: float = 0.10  # the same for the rows of one label
    label_delay_seconds: float = 0.0  # an outcome counts, and is waited for, once its answer is this old
    reports_revert: int = 5  # so many people who report the version within the window revert it; 0: never
    reports_window_seconds: float = 600.0
    bake_seconds: float = 3600.0
    shadow_requests: int = 50
    targets: tuple[str, ...] = ("gateway", "folder")

    def __post_init__(self) -> None:
        if not self.steps or any(not 0 < step <= 1 for step in self.steps):
            raise ValueError("rollout steps must be shares above 0 and up to 1")
        if any(second <= first for first, second in zip(self.steps, self.steps[1:], strict=False)):
            raise ValueError("rollout steps must grow")
        numbers = (
            self.min_samples, self.step_seconds, self.max_hold_seconds, self.max_error_rate, self.max_latency_ratio,
            self.max_agreement_drop, self.bake_seconds, self.shadow_requests, self.latency_slack_ms, self.max_slice_drop,
            self.label_delay_seconds, self.reports_revert, self.reports_window_seconds,
        )  # fmt: skip
        if any(not isfinite(number) or number < 0 for number in numbers):
            raise ValueError("rollout settings must be finite and not negative")
        if self.min_samples < 1:
            raise ValueError("min_samples must be at least 1: a step without answers is never a pass")

    @property
    def shares(self) -> tuple[float, ...]:
        """The canary's shares; 1.0 is not one of them, since everything is what ``baking`` serves.

        >>> Plan().shares
        (0.05, 0.25, 0.5)
        """
        return tuple(step for step in self.steps if step < 1.0)

    def as_record(self) -> dict[str, Any]:
        """Plain JSON for the rollout row."""
        return {**asdict(self), "steps": list(self.steps), "targets": list(self.targets)}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Plan:
        """Inverse of ``as_record``, also of plans that older versions froze: what they did not know has its default.

        >>> Plan.from_record(Plan(steps=(0.1, 1.0)).as_record()).shares
        (0.1,)
        """
        known = {field.name: record[field.name] for field in fields(cls) if field.name in record}
        for name in ("steps", "targets"):
            if name in known:
                known[name] = tuple(known[name])
        if "on_too_little_traffic" in known:
            known["on_too_little_traffic"] = TooLittleTraffic(known["on_too_little_traffic"])
        return cls(**known)


@dataclass(frozen=True, kw_only=True, slots=True)
class RolloutStatus:
    """Where a rollout stands. ``step`` counts canary steps from 0; ``weight`` is the candidate's share of keys;
    ``step_at`` is when this began."""

    state: RolloutState
    step: int
    weight: float
    step_at: datetime
    reason: str = ""


def begin(now: datetime) -> RolloutStatus:
    """A rollout that no traffic has met yet."""
    return RolloutStatus(state=RolloutState.PENDING, step=0, weight=0.0, step_at=now)


def to_shadow(status: RolloutStatus, now: datetime) -> RolloutStatus:
    """Let the candidate answer recorded requests; a repeat changes nothing. RolloutError once it met traffic or
    ended."""
    if status.state is RolloutState.SHADOW:
        return status
    _demand(status, {RolloutState.PENDING}, "begin its shadow")
    return RolloutStatus(state=RolloutState.SHADOW, step=0, weight=0.0, step_at=now)


def to_step(status: RolloutStatus, plan: Plan, step: int, now: datetime) -> RolloutStatus:
    """Give the candidate the share of canary step ``step``; a repeat changes nothing, a step back or a skipped one is
    a RolloutError."""
    if not 0 <= step < len(plan.shares):
        raise RolloutError(f"the plan has {len(plan.shares)} canary steps and no step {step}; promote it instead")
    if status.state is RolloutState.CANARY and status.step == step:
        return status
    _demand(status, OPEN, f"take step {step}")
    expected = status.step + 1 if status.state is RolloutState.CANARY else 0
    if step != expected:
        raise RolloutError(f"step {step} cannot follow here; the next one is {expected}")
    return RolloutStatus(state=RolloutState.CANARY, step=step, weight=plan.shares[step], step_at=now)


def to_full(status: RolloutStatus, now: datetime) -> RolloutStatus:
    """Serve everything and bake; a repeat changes nothing. RolloutError when it ended."""
    if status.state in {RolloutState.BAKING, RolloutState.DONE}:
        return status
    _demand(status, OPEN, "serve everything")
    return RolloutStatus(state=RolloutState.BAKING, step=status.step, weight=1.0, step_at=now)


def to_done(status: RolloutStatus, now: datetime) -> RolloutStatus:
    """End the bake well; a repeat changes nothing."""
    if status.state is RolloutState.DONE:
        return status
    _demand(status, {RolloutState.BAKING}, "end its bake")
    return replace(status, state=RolloutState.DONE, step_at=now)


def to_reverted(status: RolloutStatus, reason: str, now: datetime) -> RolloutStatus:
    """Take it out of traffic, from any state but superseded; the first reason stays."""
    if status.state is RolloutState.REVERTED:
        return status
    _demand(status, OPEN | {RolloutState.BAKING, RolloutState.DONE}, "be reverted")
    return replace(status, state=RolloutState.REVERTED, weight=0.0, step_at=now, reason=reason)


def to_reverted_by_hand(status: RolloutStatus, reason: str, now: datetime) -> RolloutStatus:
    """Take it out of traffic by a person's order; one that was put back after its revert is reverted anew."""
    return replace(to_reverted(status, reason, now), step_at=now, reason=reason)


def to_superseded(status: RolloutStatus, reason: str, now: datetime) -> RolloutStatus:
    """Give way to a newer candidate, or to a newer champion while baking."""
    if status.state is RolloutState.SUPERSEDED:
        return status
    _demand(status, OPEN | {RolloutState.BAKING}, "be superseded")
    return replace(status, state=RolloutState.SUPERSEDED, weight=0.0, step_at=now, reason=reason)


def to_baking_again(status: RolloutStatus, now: datetime) -> RolloutStatus:
    """Go on with a bake that a newer champion cut short, since that one went back; a repeat changes nothing."""
    if status.state is RolloutState.BAKING:
        return status
    _demand(status, {RolloutState.SUPERSEDED}, "bake again")
    return replace(status, state=RolloutState.BAKING, weight=1.0, step_at=now, reason="")


def to_step_again(status: RolloutStatus, now: datetime) -> RolloutStatus:
    """Begin the present step anew at its share: another champion answers beside the candidate now."""
    _demand(status, OPEN, "begin its step anew")
    return replace(status, step_at=now)


def advance(status: RolloutStatus, plan: Plan, verdict: RolloutVerdict, now: datetime) -> RolloutStatus:
    """What follows from one verdict: hold stays, rollback reverts, promote goes one state or step further.

    >>> from datetime import UTC
    >>> go = RolloutVerdict(action=RolloutAction.PROMOTE, reason="")
    >>> at, path = begin(datetime(2026, 1, 1, tzinfo=UTC)), []
    >>> for _ in range(6):
    ...     at = advance(at, Plan(), go, at.step_at); path.append((at.state.value, at.weight))
    >>> path
    [('shadow', 0.0), ('canary', 0.05), ('canary', 0.25), ('canary', 0.5), ('baking', 1.0), ('done', 1.0)]
    """
    if status.state in ENDED:
        raise RolloutError(f"this rollout is {status.state.value}; open a new one")
    if verdict.action in {RolloutAction.HOLD, RolloutAction.ASK}:
        return status
    if verdict.action is RolloutAction.ROLLBACK:
        return to_reverted(status, verdict.reason, now)
    if status.state is RolloutState.BAKING:
        return to_done(status, now)
    if status.state is RolloutState.PENDING and plan.shadow_requests:
        return to_shadow(status, now)
    following = status.step + 1 if status.state is RolloutState.CANARY else 0
    if following < len(plan.shares):
        return to_step(status, plan, following, now)
    return to_full(status, now)


def _demand(status: RolloutStatus, allowed: set[RolloutState] | frozenset[RolloutState], move: str) -> None:
    if status.state not in allowed:
        because = f" ({status.reason})" if status.reason else ""
        raise RolloutError(f"a rollout that is {status.state.value}{because} cannot {move}; look at `perennial models`")
