"""Whether an agent's trainings wait: its first version is on its way, its candidates are refused again and again, or its training seconds
are spent."""

from __future__ import annotations

from collections.abc import Callable

from perennial.domain.words import GateAction, Reason, RolloutState
from perennial.errors import RolloutError
from perennial.fleet.agent import Agent
from perennial.fleet.budget import Spent, overspent
from perennial.flows.ports import Ports
from perennial.rollout.breaker import Ended, Pause, pause
from perennial.rollout.machine import OPEN

PAUSED = frozenset({Reason.THRESHOLD, Reason.DRIFT})  # what starts by itself; people's wishes and schedules do not wait
BUDGETED = frozenset({*PAUSED, Reason.SCHEDULE})  # what a spent budget stops; corrections only at its second limit
_SERVES = frozenset({RolloutState.BAKING, RolloutState.DONE})


def pause_of(ports: Ports, agent: str) -> Pause | None:
    """The open circuit breaker of an agent, or None. Reads its newest gate reports and rollouts: constant time."""
    declared = _declared(ports, agent)
    if declared is None or declared.breaker.refused <= 0:
        return None
    settings = declared.breaker
    return pause(
        [*_held(ports, agent, settings.refused), *_rolled_out(ports, agent, settings.refused)], refused=settings.refused,
        window_seconds=settings.window_seconds, now=ports.rollouts.now(), reset=ports.rollouts.breaker_reset(agent),
    )  # fmt: skip


def overspent_of(ports: Ports, agent: str, *, urgent: bool = False) -> str | None:
    """One line when the agent's training budget is spent (``urgent``: for corrections too), or None. Constant time without one."""
    declared = _declared(ports, agent)
    if declared is None or not declared.budget.limited:
        return None
    day, week = ports.jobs.training_seconds(agent)
    return overspent(declared.budget, Spent(day=day, week=week), urgent=urgent)


def first_rollout_of(ports: Ports, agent: str) -> str | None:
    """One line while the rollout of a first version is open, in a freeze window for days; None once a version served. Two indexed looks.

    Trained now, the batch would have no champion to be judged against, and its rows would count as refused or be learned without
    what the first version knows.
    """
    if ports.ledger.ever_served(agent):
        return None
    row = ports.rollouts.latest(agent)
    if row is None or row.state not in OPEN:
        return None
    return f"its first version {row.version} is still in rollout{f' ({row.reason})' if row.reason else ''}"


def waits(ports: Ports, agent: str, reason: Reason, *, breaker: Callable[[], Pause | None] | None = None) -> str | None:
    """Why a training for this reason must not start now, in one line; None when it may. People's requests never wait here.

    ``breaker``: gives the agent's ``pause_of``, for who asks for it anyway.
    """
    if reason is not Reason.REQUEST and (first := first_rollout_of(ports, agent)) is not None:
        return first
    paused = (breaker() if breaker is not None else pause_of(ports, agent)) if reason in PAUSED else None
    if paused is not None:
        return paused.reason
    if reason in BUDGETED or reason is Reason.CORRECTION:
        return overspent_of(ports, agent, urgent=reason is Reason.CORRECTION)
    return None


def _declared(ports: Ports, agent: str) -> Agent | None:
    """The agent as it counts now, or None when the fleet does not know it (any more)."""
    return next((member.agent for member in ports.fleet().members if member.agent.name == agent), None)


def _held(ports: Ports, agent: str, enough: int) -> list[Ended]:
    # a passed gate ends nothing: the candidate's rollout tells how it ended
    reports = ports.ledger.gate_reports(agent, 4 * enough)
    held = [one for one in reports if one.action == GateAction.HOLD]
    return [Ended(at=one.created_at, refused=True, what="held") for one in held]


def _rolled_out(ports: Ports, agent: str, enough: int) -> list[Ended]:
    ends = []
    for row in ports.rollouts.recent(agent, 4 * enough):
        if row.state in _SERVES and row.full_at is not None:
            ends.append(Ended(at=row.full_at, refused=False, what=f"{row.version} serves"))
        elif row.state is RolloutState.REVERTED and row.ended_at is not None and not row.lost:
            ends.append(Ended(at=row.ended_at, refused=True, what=f"{row.version} reverted"))
    return ends


def reset_breaker(ports: Ports, agent: str, *, actor: str, reason: str) -> None:
    """Let the agent train by itself again; audited. RolloutError without a name or a reason, NotConfigured for no agent."""
    if not actor.strip() or not reason.strip():
        raise RolloutError("a reset needs the name of who decides, and a reason")
    ports.fleet().agent(agent)
    ports.rollouts.reset_breaker(agent, actor=actor, reason=reason)
    ports.audit.append(actor=actor, action="breaker_reset", agent=agent, detail={"why": reason})
