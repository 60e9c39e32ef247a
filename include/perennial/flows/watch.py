"""Keeps watching recent champions after 100 %, and puts the predecessor back when production disagrees."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

from perennial.domain.verdict import RolloutVerdict
from perennial.domain.words import RolloutAction
from perennial.flows.ports import Ports
from perennial.flows.rollout import ACTOR, align_targets, flag, predictors
from perennial.gates.scores import row_score
from perennial.rollout.rows import RolloutRow
from perennial.rollout.verdict import MIN_OUTCOMES, ArmStats, judge_bake

logger = logging.getLogger(__name__)

RECENT = 100  # newest answers judged alone, so that a long good past cannot hide a bad present
REPLAYED = 200  # newest requests that the predecessor answers before anything is put back


def something_bakes(ports: Ports) -> bool:
    """Whether any recent champion is still watched; one indexed look."""
    return bool(ports.rollouts.baking())


def _on_equal_terms(
    ports: Ports, row: RolloutRow, before: ArmStats, now: ArmStats, elapsed: float
) -> RolloutVerdict | None:
    """The verdict again, with the predecessor answering the very requests that the champion got.

    Traffic itself can turn harder (a new topic, drift): then the predecessor would do no better, and going back helps nobody. None when
    too few requests with a known truth are recorded to ask.
    """
    asked = ports.rollouts.judged_inputs(row.agent, row.version, since=row.full_at or row.started_at, limit=REPLAYED)
    if len(asked) < MIN_OUTCOMES or row.previous is None:
        return None
    agent = ports.fleet().agent(row.agent)
    models = predictors(ports, agent, row.previous)
    right, rows = 0.0, 0
    for task in sorted({one.task for one in asked} & models.keys()):
        mine = [one for one in asked if one.task == task]
        answers = models[task].predict([one.text for one in mine])
        kind = agent.task(task).kind
        right += sum(row_score(kind, answer.output, one.actual) for answer, one in zip(answers, mine, strict=True))
        rows += len(mine)
    if rows < MIN_OUTCOMES:
        return None
    own = sum(one.correct for one in asked if one.task in models)
    fair_before = replace(before, outcomes=rows, correct_sum=right)
    fair_now = replace(now, outcomes=rows, correct_sum=own)
    logger.info(
        "%s: on the same %s requests %s has %.0f right, %s would have %.0f",
        row.agent,
        rows,
        row.version,
        own,
        row.previous,
        right,
    )
    return judge_bake(row.plan, fair_before, fair_now, elapsed=elapsed)


def look(ports: Ports) -> list[dict[str, Any]]:
    """Judge every baking champion; reverts the bad, closes the ripe. Repeatable at any time."""
    results: list[dict[str, Any]] = []
    for row in ports.rollouts.baking():
        elapsed = ports.rollouts.seconds_since_full(row.id)
        since = row.full_at or row.started_at
        now = ports.rollouts.stats(row.agent, row.version, since=since)
        before = ports.rollouts.stats(row.agent, row.previous or "", since=None)
        recent = ports.rollouts.stats(row.agent, row.version, since=since, last=RECENT)
        verdict = judge_bake(row.plan, before, now, elapsed=elapsed, recent=recent)
        if verdict.action is RolloutAction.ROLLBACK and row.previous is not None:
            verdict = _on_equal_terms(ports, row, before, now, elapsed) or verdict
        reason, action = verdict.reason, verdict.action
        if action is RolloutAction.ROLLBACK and row.previous is not None:
            ports.rollouts.look(row.id, action=action, reason=reason, evidence=dict(verdict.evidence))
            ports.rollouts.revert(row.id, reason=reason, actor=ACTOR)
            ports.audit.append(
                actor=ACTOR, action="bake_reverted", agent=row.agent, subject=row.version,
                detail={"why": reason, "back_to": row.previous, "evidence": dict(verdict.evidence)},
            )  # fmt: skip
            flag(ports, row, reason)
            align_targets(ports, row.agent)
            logger.warning("%s %s reverted to %s: %s", row.agent, row.version, row.previous, reason)
        elif action is RolloutAction.PROMOTE:
            ports.rollouts.close(row.id)
        results.append({"agent": row.agent, "version": row.version, "action": action.value, "reason": reason})
    return results
