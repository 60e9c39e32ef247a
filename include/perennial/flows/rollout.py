"""One rollout, step by step: each function is the body of one Airflow task and can be killed and run again."""

from __future__ import annotations

import json
import logging
import time
from typing import Any

from perennial.domain.model import Predictor
from perennial.domain.words import RolloutAction, RolloutState
from perennial.errors import PromotionRefused, RolloutError, UntrustedBundle
from perennial.fleet.agent import Agent
from perennial.flows.champion import bundle_folder, champion_folder
from perennial.flows.ports import Ports
from perennial.rollout.machine import Plan
from perennial.rollout.rows import RolloutRow
from perennial.rollout.shadow import compare
from perennial.rollout.verdict import judge

logger = logging.getLogger(__name__)

ACTOR = "perennial"


def verify(ports: Ports, agent: str, run_id: str) -> dict[str, Any] | None:
    """Pick the newest released version that has not met traffic, check its bytes, and freeze its plan.

    None when nothing waits. A rollout of an older candidate that is still open is superseded. A bundle that does not agree
    with its signature or ledger row, or that no verdict and approval let through, is recorded as reverted and refused: the
    champion keeps serving.
    """
    waiting = ports.ledger.newest_unserved(agent)
    row = ports.rollouts.of_run(run_id)
    if row is None:
        if waiting is None:
            return None
        row = ports.rollouts.open(
            agent=agent, version=waiting.version, plan=plan_of(ports.fleet().agent(agent)), run_id=run_id
        )
    _require_genuine(ports, row)
    return _ref(row)


def _require_genuine(ports: Ports, row: RolloutRow) -> None:
    """Refuse a version whose bytes, signature, ledger row or permission do not agree, and take it out of traffic."""
    try:
        bundle_folder(ports, row.agent, row.version)
    except (UntrustedBundle, PromotionRefused) as error:
        ports.rollouts.revert(row.id, reason=f"refused: {error}", actor=ACTOR)
        ports.audit.append(
            actor=ACTOR, action="bundle_refused", agent=row.agent, subject=row.version, detail={"why": str(error)}
        )
        raise


def plan_of(agent: Agent) -> Plan:
    """The agent's rollout settings as they are frozen into the rollout row."""
    rollout = agent.rollout
    return Plan(
        steps=rollout.steps, min_samples=rollout.min_samples, step_seconds=rollout.step_seconds,
        max_hold_seconds=rollout.max_hold_seconds, max_error_rate=rollout.max_error_rate,
        max_latency_ratio=rollout.max_latency_ratio, latency_slack_ms=rollout.latency_slack_ms,
        max_agreement_drop=rollout.max_agreement_drop, bake_seconds=rollout.bake_seconds,
        shadow_requests=rollout.shadow_requests, targets=rollout.targets,
    )  # fmt: skip


def _ref(row: RolloutRow) -> dict[str, Any]:
    return {
        "rollout_id": row.id, "agent": row.agent, "version": row.version, "previous": row.previous,
        "steps": list(row.plan.steps),
    }  # fmt: skip


def shadow(ports: Ports, ref: dict[str, Any]) -> dict[str, Any]:
    """Let the candidate answer recently recorded requests, unseen by any caller; errors or a crash of latency revert.

    The first version has nothing to shadow: it is promoted at once by the steps that follow.
    """
    row = ports.rollouts.get(ref["rollout_id"])
    if row.state in {RolloutState.REVERTED, RolloutState.SUPERSEDED}:
        return {"action": RolloutAction.HOLD.value, "reason": row.reason, "state": row.state.value}
    ports.rollouts.begin_shadow(row.id)
    inputs = ports.rollouts.recent_inputs(row.agent, row.plan.shadow_requests)
    found = champion_folder(ports, row.agent)
    if found is None or not inputs:
        reason = "no champion to compare with" if found is None else "no recorded request to replay"
        ports.rollouts.look(
            row.id, action=RolloutAction.HOLD, reason=f"shadow: {reason}", evidence={"requests": len(inputs)}
        )
        return {"action": RolloutAction.PROMOTE.value, "reason": reason, "requests": len(inputs)}
    agent = ports.fleet().agent(row.agent)
    began = time.monotonic()
    candidate = predictors(ports, agent, row.version)
    champion = predictors(ports, agent, found[0])
    report = compare(champion, candidate, inputs)
    verdict = report.verdict(row.plan)
    evidence = {**report.as_dict(), "seconds": round(time.monotonic() - began, 3)}
    ports.rollouts.look(row.id, action=verdict.action, reason=verdict.reason, evidence=evidence)
    if verdict.action is RolloutAction.ROLLBACK:
        ports.rollouts.revert(row.id, reason=verdict.reason, actor=ACTOR)
    return {"action": verdict.action.value, "reason": verdict.reason, **report.as_dict()}


def predictors(ports: Ports, agent: Agent, version: str) -> dict[str, Predictor]:
    """The loaded model of every task of one verified version."""
    folder = bundle_folder(ports, agent.name, version)
    tasks = sorted(path for path in (folder / "tasks").iterdir() if path.is_dir())
    return {path.name: load_component(ports, path) for path in tasks}


def load_component(ports: Ports, path: Any) -> Predictor:
    """Load one component with the trainer that wrote it, by the key in its record."""
    from perennial.trainers.catalogue import trainer_for

    made_by = json.loads((path / "component.json").read_text(encoding="utf-8"))["trainer"]
    return trainer_for(made_by["key"], made_by["settings"]).load(path, ports.bench)


def begin_step(ports: Ports, ref: dict[str, Any], index: int) -> dict[str, Any]:
    """Give the candidate the share of step ``index``; the last step is done by ``full``. Idempotent."""
    row = ports.rollouts.get(ref["rollout_id"])
    if row.state in {RolloutState.REVERTED, RolloutState.SUPERSEDED}:
        return {"action": row.state.value, "reason": row.reason}
    shares = canary_shares(row.plan, first=row.previous is None)
    if index >= len(shares):
        return {"action": RolloutAction.PROMOTE.value, "reason": "the plan has no such step"}
    if row.step < index or row.state is not RolloutState.CANARY:
        ports.rollouts.set_step(row.id, step=index, weight=shares[index], actor=ACTOR)
        logger.info("%s %s takes %.0f %% of the keys", row.agent, row.version, shares[index] * 100)
    return {"action": RolloutAction.HOLD.value, "reason": f"step {index + 1} of {len(shares)} at {shares[index]:.0%}"}


def canary_shares(plan: Plan, *, first: bool) -> tuple[float, ...]:
    """The shares below everything; none for a first version, which has no champion to share with.

    >>> canary_shares(Plan(steps=(0.05, 0.5, 1.0)), first=False)
    (0.05, 0.5)
    """
    return () if first else tuple(step for step in plan.steps if step < 1.0)


def look(ports: Ports, ref: dict[str, Any], index: int) -> dict[str, Any]:
    """Judge the present step from what production recorded; cheap, called about once a second by the step's trigger.

    Answers promote, hold, rollback or superseded. Only verdicts that change something are kept as looks.
    """
    row = ports.rollouts.get(ref["rollout_id"])
    if row.state is RolloutState.SUPERSEDED:
        return {"action": "superseded", "reason": row.reason}
    if row.state is RolloutState.REVERTED:
        return {"action": RolloutAction.ROLLBACK.value, "reason": row.reason}
    if row.step > index or row.state in {RolloutState.BAKING, RolloutState.DONE}:
        return {"action": RolloutAction.PROMOTE.value, "reason": "a later step is reached"}
    if index >= len(canary_shares(row.plan, first=row.previous is None)):
        return {"action": RolloutAction.PROMOTE.value, "reason": "the plan has no such step"}
    refused = ports.rollouts.gateway_error(row.agent, row.version)
    if refused:
        verdict_action, reason, evidence = RolloutAction.ROLLBACK, f"a gateway refused it: {refused}", {}
    else:
        elapsed = ports.rollouts.seconds_on_step(row.id)
        serves = (
            ports.rollouts.serving(row.agent).champion or row.previous or ""
        )  # a bake may have put another back meanwhile
        champion = ports.rollouts.stats(row.agent, serves, since=row.started_at)
        candidate = ports.rollouts.stats(row.agent, row.version, since=row.started_at)
        here = ports.rollouts.stats(row.agent, row.version, since=row.step_at).answers
        verdict = judge(row.plan, champion, candidate, elapsed=elapsed, step_answers=here)
        verdict_action, reason, evidence = verdict.action, verdict.reason, dict(verdict.evidence)
    if verdict_action is not RolloutAction.HOLD:
        ports.rollouts.look(row.id, action=verdict_action, reason=reason, evidence=evidence)
    if verdict_action is RolloutAction.ROLLBACK:
        revert(ports, ref, reason)
    return {"action": verdict_action.value, "reason": reason}


def full(ports: Ports, ref: dict[str, Any]) -> dict[str, Any]:
    """Make the candidate the champion on every target; the former champion stays hot for the bake. Idempotent."""
    row = ports.rollouts.get(ref["rollout_id"])
    if row.state in {RolloutState.REVERTED, RolloutState.SUPERSEDED}:
        raise RolloutError(f"{row.agent} {row.version} was {row.state.value}: {row.reason}")
    if row.state not in {RolloutState.BAKING, RolloutState.DONE}:
        _require_genuine(ports, row)
        ports.rollouts.promote_full(row.id, actor=ACTOR, reason=f"rollout {row.id} met its plan")
        ports.audit.append(
            actor=ACTOR, action="promoted", agent=row.agent, subject=row.version, detail={"rollout": row.id}
        )
    align_targets(ports, row.agent)
    note = f"{row.agent} {row.version} serves everything" + (
        f"; {row.previous} stays hot for the bake" if row.previous else ""
    )
    return {"version": row.version, "note": note}


def revert(ports: Ports, ref: dict[str, Any], reason: str) -> dict[str, Any]:
    """Take the candidate out of traffic; the champion's files were never touched. Idempotent."""
    row = ports.rollouts.get(ref["rollout_id"])
    if row.state not in {RolloutState.REVERTED, RolloutState.SUPERSEDED, RolloutState.DONE}:
        ports.rollouts.revert(row.id, reason=reason, actor=ACTOR)
        ports.audit.append(actor=ACTOR, action="reverted", agent=row.agent, subject=row.version, detail={"why": reason})
        flag(ports, row, reason)
        align_targets(ports, row.agent)
    return {"version": row.version, "note": f"{row.agent} {row.version} reverted: {reason}"}


def flag(ports: Ports, row: RolloutRow, reason: str) -> None:
    """Write the rolled back version, not its good predecessor, into the performance history."""
    ports.buffer.record_performance(
        agent=row.agent, model_name=f"{row.agent}-{row.version}", before=None, after=None, examples=0, rollback=True,
        job_id=None, version=row.version, detail={"reason": reason, "rollout": row.id},
    )  # fmt: skip


def align_targets(ports: Ports, agent_name: str) -> None:
    """Make targets outside the gateway (folders) and MLflow's aliases agree with the ledger. Repeatable.

    The gateway follows the serving row by itself; these follow here. A failure of MLflow's alias is logged and repaired by the
    next look of the watch: the ledger decides what serves.
    """
    champion = ports.ledger.champion(agent_name)
    if champion is None:
        return
    agent = ports.fleet().agent(agent_name)
    folder = ports.targets.get("folder")
    if folder is not None and "folder" in agent.rollout.targets:
        folder.point(agent_name, champion, bundle_folder(ports, agent_name, champion))
    ports.models.align_aliases(agent_name, champion=champion, candidate=ports.ledger.candidate(agent_name))
