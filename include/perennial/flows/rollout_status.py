"""Where an agent's newest rollout stands, what production says so far, and what happens next; reads only."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from perennial.domain.verdict import RolloutVerdict
from perennial.domain.words import Parked, RolloutState
from perennial.flows.pause import pause_of
from perennial.flows.ports import Ports
from perennial.flows.rollout import assess, freeze_of
from perennial.flows.watch import assess_bake
from perennial.rollout.rows import RolloutRow


def rollout_status(ports: Ports, agent: str, *, replay: bool = True) -> dict[str, Any]:
    """Plain JSON of the newest rollout: share, arms, samples, interval, the reason of a hold, the next check, the frozen plan.

    Beside it what keeps the agent from promoting (freeze) or from training by itself (circuit breaker). Runs in the CLI, and without
    ``replay`` (see ``assess_bake``), which may take seconds, on the Rollout page.
    """
    paused = pause_of(ports, agent)
    facts: dict[str, Any] = {
        "agent": agent, "serving": ports.rollouts.serving(agent).champion, "freeze": freeze_of(ports, agent),
        "breaker": paused.reason if paused is not None else None, "rollout": None,
    }  # fmt: skip
    row = ports.rollouts.latest(agent)
    if row is None:
        return facts
    verdict = _verdict(ports, row, replay=replay)
    rollout: dict[str, Any] = {
        "id": row.id, "version": row.version, "previous": row.previous, "state": row.state.value, "step": row.step,
        "share": row.weight, "parked": row.parked.value if row.parked is not None else None, "reason": row.reason,
        "started_at": row.started_at.isoformat(), "step_at": row.step_at.isoformat(),
        "reported_by": ports.rollouts.reporters(agent, row.version, within=row.plan.reports_window_seconds),
        "next": next_check(ports, row), "plan": row.plan.as_record(),
    }  # fmt: skip
    if verdict is not None:
        rollout |= {"says": verdict.action.value, "because": verdict.reason, "evidence": dict(verdict.evidence)}
    return {**facts, "rollout": rollout}


def _verdict(ports: Ports, row: RolloutRow, *, replay: bool) -> RolloutVerdict | None:
    if row.state is RolloutState.CANARY:
        return assess(ports, row)
    return assess_bake(ports, row, replay=replay) if row.state is RolloutState.BAKING else None


def next_check(ports: Ports, row: RolloutRow) -> str:
    """What happens next, in words."""
    if row.parked is Parked.ASK:
        return "a person decides: `perennial rollout promote` or `abort`; a bad verdict still reverts it, looked for every minute"
    if row.parked is Parked.FREEZE:
        return "rollout_watch looks every minute, and goes on when the freeze window ends"
    if row.state is RolloutState.CANARY:
        late = row.step_at + timedelta(seconds=row.plan.max_hold_seconds)
        policy = row.plan.on_too_little_traffic.value
        return f"its run looks every second; without a verdict until {late:%Y-%m-%d %H:%M:%S} UTC: {policy}"
    if row.state is RolloutState.BAKING:
        until = row.step_at + timedelta(seconds=row.plan.bake_seconds + row.plan.label_delay_seconds)
        return f"rollout_watch looks every minute; the bake ends at {until:%Y-%m-%d %H:%M:%S} UTC at the earliest"
    if row.state in {RolloutState.PENDING, RolloutState.SHADOW}:
        return "its run replays recorded requests, then begins the first step"
    return "nothing: it ended"


def arms(status: dict[str, Any]) -> list[dict[str, Any]]:
    """The two arms of a status, one row each, for a table."""
    evidence = (status["rollout"] or {}).get("evidence") or {}
    rows = []
    for arm in ("champion", "candidate"):
        stats = evidence.get(arm)
        if stats is None:
            continue
        outcomes = stats["outcomes"] or 0
        quality = f"{stats['correct_sum'] / outcomes:.1%} of {outcomes}" if outcomes else "no outcome"
        rows.append(
            {"arm": arm, "answers": stats["answers"], "errors": stats["errors"], "p50 ms": _short(stats["p50_ms"]),
             "p95 ms": _short(stats["p95_ms"]), "right": quality, "shadow agreed": _short(stats["agreement"], 2)}
        )  # fmt: skip
    return rows


def _short(value: Any, digits: int = 1) -> str:
    return f"{value:.{digits}f}" if isinstance(value, int | float) else str(value or "")
