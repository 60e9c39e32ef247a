"""One rollout, step by step: each function is the body of one Airflow task and can be killed and run again."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection
from typing import Any

from perennial.domain.model import Predictor
from perennial.domain.verdict import RolloutVerdict
from perennial.domain.words import Parked, RolloutAction, RolloutState
from perennial.errors import NotConfigured, PromotionRefused, RolloutError, UntrustedBundle
from perennial.fleet.agent import Agent, Rollout
from perennial.flows.champion import bundle_folder, champion_folder
from perennial.flows.live_evidence import beside, refused_by_gateway
from perennial.flows.permission import require_served_permission
from perennial.flows.ports import Ports
from perennial.registry.rows import Alias
from perennial.rollout.freeze import frozen, frozen_lately, windows_of
from perennial.rollout.machine import Plan
from perennial.rollout.rows import RolloutRow
from perennial.rollout.shadow import compare
from perennial.rollout.verdict import judge

logger = logging.getLogger(__name__)

ACTOR = "perennial"
PARKED = "parked"  # no verdict: the rollout waits for a person or for the end of a freeze window
_MOVES = 50  # newest moves of an agent's aliases in which a promotion is looked for
REVERSALS = frozenset({"reverted", "bake_reverted", "rollout_aborted"})  # actions that one revert is audited as
PROMOTED = frozenset({"promoted"})
_BEHIND = "targets_behind"  # audited when targets do not follow a move
_FOLLOWED = "targets_aligned"  # and when they do later
_ROUNDS = 5  # times that targets are pointed anew because what serves changed meanwhile


def verify(ports: Ports, agent: str, run_id: str) -> dict[str, Any] | None:
    """Pick the newest released version that has not met traffic, check its bytes, and freeze its plan.

    None when nothing waits. A rollout of an older candidate that is still open is superseded. A bundle that does not agree
    with its signature or ledger row, or that no verdict and approval let through, is recorded as reverted and refused: the
    champion keeps serving.
    """
    waiting = ports.ledger.newest_unserved(agent)
    row = ports.rollouts.of_run(agent, run_id)
    if row is None:
        if waiting is None:
            return None
        row = ports.rollouts.open(
            agent=agent, version=waiting.version, plan=plan_of(ports.fleet().agent(agent)), run_id=run_id
        )
    _refuse_unless(ports, row, bundle_folder)
    return _ref(row)


def _refuse_unless(ports: Ports, row: RolloutRow, check: Callable[[Ports, str, str], object]) -> None:
    """Take a version out of traffic, and let the error through, when its bytes, signature, ledger row or permission do not agree."""
    try:
        check(ports, row.agent, row.version)
    except (UntrustedBundle, PromotionRefused) as error:
        ports.rollouts.revert(row.id, reason=f"refused: {error}", actor=ACTOR)
        ports.audit.append(
            actor=ACTOR, action="bundle_refused", agent=row.agent, subject=row.version,
            detail={"why": str(error), "rollout": row.id},
        )  # fmt: skip
        raise


def plan_of(agent: Agent) -> Plan:
    """The agent's rollout settings as they are frozen into the rollout row."""
    return Plan(**{name: getattr(agent.rollout, name) for name in Rollout.__slots__})


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
    from perennial.trainers.catalogue import load_component as by_its_record

    return by_its_record(path, ports.bench)


def begin_step(ports: Ports, ref: dict[str, Any], index: int) -> dict[str, Any]:
    """Give the candidate the share of step ``index``; the last step is done by ``full``. Idempotent."""
    row = ports.rollouts.get(ref["rollout_id"])
    if row.state in {RolloutState.REVERTED, RolloutState.SUPERSEDED}:
        return {"action": row.state.value, "reason": row.reason}
    if row.state in {RolloutState.BAKING, RolloutState.DONE}:
        return {"action": RolloutAction.PROMOTE.value, "reason": "it serves everything"}
    shares = canary_shares(row.plan, first=row.previous is None)
    if index >= len(shares):
        return {"action": RolloutAction.PROMOTE.value, "reason": "the plan has no such step"}
    if row.step < index or row.state is not RolloutState.CANARY:
        closed = freeze_of(ports, row.agent)
        if closed is not None:
            return park(ports, row, Parked.FREEZE, closed)
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

    Answers promote, hold, rollback, superseded or parked. Only verdicts that change something are kept as looks.
    """
    row = ports.rollouts.get(ref["rollout_id"])
    over = _over_already(row, index)
    if over is not None:
        return over
    verdict = assess(ports, row)
    action, reason = verdict.action, verdict.reason
    if action is RolloutAction.PROMOTE:
        closed = freeze_of(ports, row.agent)
        if closed is not None:
            return park(ports, row, Parked.FREEZE, closed)
    if action is RolloutAction.ASK:
        if row.parked is not Parked.ASK:
            ports.rollouts.look(row.id, action=action, reason=reason, evidence=dict(verdict.evidence))
        return park(ports, row, Parked.ASK, reason)
    if action is not RolloutAction.HOLD:
        ports.rollouts.look(row.id, action=action, reason=reason, evidence=dict(verdict.evidence))
    if action is RolloutAction.ROLLBACK:
        revert(ports, ref, reason)
    return {"action": action.value, "reason": reason}


def _over_already(row: RolloutRow, index: int) -> dict[str, Any] | None:
    if row.state is RolloutState.SUPERSEDED:
        return {"action": "superseded", "reason": row.reason}
    if row.state is RolloutState.REVERTED:
        return {"action": RolloutAction.ROLLBACK.value, "reason": row.reason}
    if row.step > index or row.state in {RolloutState.BAKING, RolloutState.DONE}:
        return {"action": RolloutAction.PROMOTE.value, "reason": "a later step is reached"}
    if index >= len(canary_shares(row.plan, first=row.previous is None)):
        return {"action": RolloutAction.PROMOTE.value, "reason": "the plan has no such step"}
    return None


def assess(ports: Ports, row: RolloutRow, *, patient: bool = False) -> RolloutVerdict:
    """What production says of the present canary step; changes nothing. ``patient``, and in a freeze and for its patience afterwards:
    only decisive evidence reverts."""
    refused = refused_by_gateway(ports, row)
    if refused is not None:
        return refused
    # a bake may have put another back meanwhile
    serves = ports.rollouts.serving(row.agent).champion or row.previous or ""
    delay, began = row.plan.label_delay_seconds, row.started_at
    champion = ports.rollouts.stats(row.agent, serves, since=began, label_delay=delay)
    candidate = ports.rollouts.stats(row.agent, row.version, since=began, label_delay=delay)
    here = ports.rollouts.stats(row.agent, row.version, since=row.step_at).answers
    return judge(
        row.plan, champion, candidate, elapsed=ports.rollouts.seconds_on_step(row.id), step_answers=here,
        beside=beside(ports, row, against=serves, before=began, since=began),
        patient=patient or _frozen_lately(ports, row),
    )  # fmt: skip


def _windows(ports: Ports, agent: str) -> tuple[str, ...]:
    return windows_of(ports.fleet().agent(agent).freeze, ports.settings.freeze)


def _frozen_lately(ports: Ports, row: RolloutRow) -> bool:
    if row.parked is not Parked.FREEZE:
        return False
    try:
        return frozen_lately(_windows(ports, row.agent), ports.rollouts.now(), row.plan.max_hold_seconds)
    except (NotConfigured, ValueError):
        return True  # it waits still, as `freeze_of` says: nothing may be promoted


def freeze_of(ports: Ports, agent: str) -> str | None:
    """Why nothing of this agent may be promoted now by the store's clock; None when it may.

    Read anew at every step, since a freeze is declared when it is needed and never frozen into a plan. Windows that cannot be read
    keep everything as it is.
    """
    try:
        windows = _windows(ports, agent)
        return frozen(windows, ports.rollouts.now()) if windows else None
    except NotConfigured as error:
        return f"whether {agent} is frozen cannot be read: {error}"
    except ValueError as error:  # the agent's own windows were checked when its file was read
        return f"PERENNIAL_FREEZE cannot be read: {error}"


def park(ports: Ports, row: RolloutRow, why: Parked, reason: str) -> dict[str, Any]:
    """Leave an open rollout at its share without a run that waits; ``rollout_watch`` looks after it. Idempotent."""
    ports.rollouts.park(row.id, why, reason)
    logger.info("%s %s stays at %.0f %% of the keys: %s", row.agent, row.version, row.weight * 100, reason)
    return {"action": PARKED, "reason": reason}


def full(ports: Ports, ref: dict[str, Any]) -> dict[str, Any]:
    """Make the candidate the champion on every target; the former champion stays hot for the bake. Idempotent.

    In a freeze window it is parked instead. PromotionRefused when no live verdict or approval covers its bytes.
    """
    row = ports.rollouts.get(ref["rollout_id"])
    if row.state in {RolloutState.REVERTED, RolloutState.SUPERSEDED}:
        raise RolloutError(f"{row.agent} {row.version} was {row.state.value}: {row.reason}")
    if row.state not in {RolloutState.BAKING, RolloutState.DONE}:
        closed = freeze_of(ports, row.agent)
        if closed is not None:
            return {**park(ports, row, Parked.FREEZE, closed), "note": f"{row.agent} {row.version} waits: {closed}"}
        # reads no bytes: gateways verified those that they loaded
        _refuse_unless(ports, row, require_served_permission)
        row = ports.rollouts.promote_full(row.id, actor=ACTOR, reason=f"rollout {row.id} met its plan")
    actor, detail = _promoted_by(ports, row)
    settle(ports, row, PROMOTED, action="promoted", actor=actor, detail=detail)
    note = f"{row.agent} {row.version} serves everything" + (
        f"; {row.previous} stays hot for the bake" if row.previous else ""
    )
    return {"version": row.version, "note": note}


def revert(ports: Ports, ref: dict[str, Any], reason: str) -> dict[str, Any]:
    """Take the candidate out of traffic; the champion's files were never touched. Idempotent, also after a kill half-way."""
    row = ports.rollouts.get(ref["rollout_id"])
    if row.state not in {RolloutState.SUPERSEDED, RolloutState.DONE}:
        if row.state is not RolloutState.REVERTED:
            row = ports.rollouts.revert(row.id, reason=reason, actor=ACTOR)
        settle_revert(ports, row)
    return {"version": row.version, "note": f"{row.agent} {row.version} reverted: {reason}"}


def settle_revert(ports: Ports, row: RolloutRow, *, action: str | None = None, actor: str = ACTOR) -> bool:
    """What follows a revert: performance history, targets, audit. Each once, however often this is called; True when anything
    was still to be done. A person's revert names its own ``action`` and ``actor``. Raises what ``settle`` raises."""
    word = action or ("bake_reverted" if row.full_at is not None else "reverted")
    detail = {"why": row.reason, "back_to": ports.rollouts.serving(row.agent).champion}
    flag(ports, row, row.reason)
    return settle(ports, row, REVERSALS, action=word, actor=actor, detail=detail)


def settle(
    ports: Ports, row: RolloutRow, words: Collection[str], *, action: str, actor: str, detail: dict[str, Any]
) -> bool:
    """Let the targets follow a move that is made, and audit it unless one of ``words`` is; True when it was audited now.

    Targets that do not follow keep nothing out of the audit: an entry says that they stay behind, the error goes on, and the
    watch comes back until they follow, which is an entry of its own.
    """
    failed: Exception | None = None
    try:
        why = None if align_targets(ports, row.agent) else "MLflow's aliases"
    except Exception as error:  # noqa: BLE001 - whatever a folder or a store raises; it is raised again below
        failed, why = error, type(error).__name__
    after = _after(words)
    if why is not None and not _audited(ports, row, {_BEHIND}, after=after):
        _audit(ports, row, action=_BEHIND, actor=ACTOR, detail={"after": after, "why": why})
    elif why is None and _audited(ports, row, {_BEHIND}, after=after):
        audit_once(ports, row, {_FOLLOWED}, action=_FOLLOWED, actor=ACTOR, detail={"after": after})
    # last: a kill before it repeats all
    written = audit_once(ports, row, words, action=action, actor=actor, detail=detail)
    if failed is not None:
        raise failed
    return written


def is_settled(ports: Ports, row: RolloutRow) -> bool:
    """Whether all that follows a revert was done: it is audited, and the targets follow."""
    return _followed(ports, row, REVERSALS | {"bundle_refused"})


def is_promoted(ports: Ports, row: RolloutRow) -> bool:
    """Whether all that follows a promotion was done: it is audited, and the targets follow."""
    return _followed(ports, row, PROMOTED)


def _followed(ports: Ports, row: RolloutRow, words: Collection[str]) -> bool:
    if not _audited(ports, row, words):
        return False
    after = _after(words)
    return not _audited(ports, row, {_BEHIND}, after=after) or _audited(ports, row, {_FOLLOWED}, after=after)


def _after(words: Collection[str]) -> str:
    """Which move the targets are to follow, in the entries about them."""
    return "promotion" if PROMOTED.issuperset(words) else "revert"


def audit_once(
    ports: Ports, row: RolloutRow, words: Collection[str], *, action: str, actor: str, detail: dict[str, Any]
) -> bool:
    """Write one decision on a rollout unless one of ``words`` is written about it; True when it was written now.

    ``after`` in the detail tells entries of the same word apart.
    """
    if _audited(ports, row, words, **{key: detail[key] for key in detail.keys() & {"after"}}):
        return False
    _audit(ports, row, action=action, actor=actor, detail=detail)
    return True


def _audit(ports: Ports, row: RolloutRow, *, action: str, actor: str, detail: dict[str, Any]) -> None:
    ports.audit.append(
        actor=actor, action=action, agent=row.agent, subject=row.version, detail={**detail, "rollout": row.id}
    )


def _audited(ports: Ports, row: RolloutRow, words: Collection[str], **about: Any) -> bool:
    """Whether one of ``words`` is written about this rollout, with these details."""
    return ports.audit.has(agent=row.agent, subject=row.version, actions=words, detail={"rollout": row.id, **about})


def _promoted_by(ports: Ports, row: RolloutRow) -> tuple[str, dict[str, Any]]:
    """Who made it the champion, and what the audit entry says of it: a person whose promotion was killed before its entry stands in
    the alias's move, which is written with the promotion."""
    moves = ports.ledger.moves(row.agent, _MOVES)
    move = next((one for one in moves if one.alias is Alias.CHAMPION and one.version == row.version), None)
    if move is None or move.actor == ACTOR:
        return ACTOR, {}
    return move.actor, {"why": move.reason.removeprefix(f"promoted by {move.actor}: "), "by_hand": True}


def flag(ports: Ports, row: RolloutRow, reason: str) -> None:
    """Write the rolled back version, not its good predecessor, into the performance history, once."""
    if any(one.version == row.version and one.rollback_triggered for one in ports.buffer.performance(row.agent, 50)):
        return
    ports.buffer.record_performance(
        agent=row.agent, model_name=f"{row.agent}-{row.version}", before=None, after=None, examples=0, rollback=True,
        job_id=None, version=row.version, detail={"reason": reason, "rollout": row.id},
    )  # fmt: skip


def align_targets(ports: Ports, agent_name: str) -> bool:
    """Make targets outside the gateway (folders) and MLflow's aliases agree with the ledger. Repeatable.

    The gateway follows the serving row by itself; these follow here. False, and a warning, when MLflow's aliases do not follow
    yet: the next look of the watch repairs them, and the ledger decides what serves. What serves is read again at the end and
    followed anew if it moved, so that of two writers the one who comes late leaves the truth. RolloutError when it never rests.
    """
    for _ in range(_ROUNDS):
        champion, candidate = ports.ledger.champion(agent_name), ports.ledger.candidate(agent_name)
        if champion is None:
            return True
        folder = ports.targets.get("folder")
        if folder is not None and "folder" in _targets_of(ports, agent_name):
            folder.point(agent_name, champion, bundle_folder(ports, agent_name, champion))
        follow = ports.models.align_aliases(agent_name, champion=champion, candidate=candidate)
        if (ports.ledger.champion(agent_name), ports.ledger.candidate(agent_name)) == (champion, candidate):
            return follow
    raise RolloutError(f"what serves of {agent_name} changed {_ROUNDS} times while its targets followed; try again")


def _targets_of(ports: Ports, agent_name: str) -> Collection[str]:
    """The agent's targets: as the fleet says, or, where its file is gone or broken, as its newest rollout began."""
    try:
        return ports.fleet().agent(agent_name).rollout.targets
    except NotConfigured:
        row = ports.rollouts.latest(agent_name)
        return () if row is None else row.plan.targets
