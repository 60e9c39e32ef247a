"""A person puts an earlier version back."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from perennial.domain.model import SemanticVersion
from perennial.errors import RolloutError, UnknownAgent
from perennial.flows.champion import bundle_folder
from perennial.flows.ports import Ports
from perennial.flows.retention import check_files_are_there
from perennial.flows.rollout import ACTOR, align_targets, is_settled, settle_revert
from perennial.registry.rows import Alias, AliasMove
from perennial.rollout.rows import RolloutRow

LATELY = 60.0  # seconds within which the same order is one that is given again
# How long ago a revert may have been that is looked at again: a machine may stay away for weeks. What was done is told by the audit.
REPAIRED_SECONDS = 30 * 86400.0
_JUST_BEFORE = timedelta(microseconds=1)


def rollback_agent(ports: Ports, agent: str, *, actor: str, reason: str, version: str | None = None) -> dict[str, Any]:
    """Serve ``version`` (default: the champion before the present one) again, with the same bytes; history stays.

    Killed after the move, the same order by the same person within a minute finishes it instead of going back further; without
    that ``rollout_watch`` does. Raises RolloutError when there is no such version, FilesRemoved when retention took its files,
    UntrustedBundle when its bytes do not agree with the ledger.
    """
    if ports.ledger.champion(agent) is None and agent not in (names := ports.fleet().names):
        raise UnknownAgent(agent, list(names))  # before anything is locked or written under a stranger's words
    if version is not None:
        try:
            SemanticVersion.parse(version)
        except ValueError:  # not repeated: what is no version may be anything
            raise RolloutError(f"this is no version of {agent}; `perennial models {agent}` lists them") from None
    killed = _killed(ports, agent, actor, reason, version)
    if killed:
        for row in killed:
            settle_killed(ports, row)
        return {"agent": agent, "from": killed[-1].version, "to": ports.ledger.champion(agent)}
    current = ports.ledger.champion(agent)
    target = version or ports.rollouts.previous_champion(agent)
    if target is None:
        raise RolloutError(f"{agent} has no earlier version to go back to; `perennial models {agent}` lists them")
    if target == current:
        raise RolloutError(f"{agent} serves {target} already")
    check_files_are_there(ports, agent, target)  # a copy that still lies on this machine does not count
    bundle_folder(ports, agent, target)
    ports.rollouts.rollback(agent, target, actor=actor, reason=reason)
    gone = _gone(ports, agent, reason, LATELY)
    _audit(ports, agent, target, current, actor, reason, gone)
    ports.buffer.record_performance(
        agent=agent, model_name=f"{agent}-{current}", before=None, after=None, examples=0, rollback=True, job_id=None,
        version=current, detail={"reason": reason, "by": actor, "back_to": target},
    )  # fmt: skip
    for row in gone:
        settle_revert(ports, row, action="reverted", actor=actor)
    align_targets(ports, agent)
    return {"agent": agent, "from": current, "to": target}


def settle_killed(ports: Ports, row: RolloutRow) -> None:
    """Finish a revert whose process was killed after the move, under the name of whoever ordered it. Repeatable.

    Who and why are in the alias's move, which is written with the revert. Runs in ``rollout_watch``, and when the order is given again.
    """
    order = _order(ports, row)
    if order is None:
        settle_revert(ports, row)
        return
    if order.alias is Alias.CHAMPION and not _audited(ports, row, str(order.version)):
        before = ports.ledger.served_at(row.agent, order.moved_at - _JUST_BEFORE)
        current = None if before is None else before.version
        gone = _gone(ports, row.agent, row.reason, REPAIRED_SECONDS)
        together = [one for one in gone if one.ended_at == row.ended_at]  # one order reverts in one transaction
        _audit(ports, row.agent, str(order.version), current, order.actor, order.reason, together)
    word = "reverted" if order.alias is Alias.CHAMPION else "rollout_aborted"
    settle_revert(ports, row, action=word, actor=order.actor)


def _killed(ports: Ports, agent: str, actor: str, reason: str, version: str | None) -> list[RolloutRow]:
    """Rollouts that this very order took back a moment ago without coming to its end.

    Not when another version serves by now or another one is asked for: then this is a new order, and ``rollout_watch`` ends the old.
    """
    serves = ports.ledger.champion(agent)
    if version not in (None, serves):
        return []
    return [
        row
        for row in _gone(ports, agent, reason, LATELY)
        if not is_settled(ports, row)
        and (order := _order(ports, row)) is not None
        and (order.actor, order.version) == (actor, serves)
    ]


def _gone(ports: Ports, agent: str, reason: str, within: float) -> list[RolloutRow]:
    return [row for row in ports.rollouts.reverted_lately(within) if (row.agent, row.reason) == (agent, reason)]


def _order(ports: Ports, row: RolloutRow) -> AliasMove | None:
    """The person's move that reverted this rollout; None when the controller did it. A rollback may take a candidate along.

    It was written in one transaction with the rollout's end, so it is the first from there on that bears its reason.
    """
    if row.ended_at is None:
        return None
    move = ports.ledger.first_move(row.agent, reason=row.reason, since=row.ended_at)
    return None if move is None or move.actor == ACTOR else move


def _audit(
    ports: Ports, agent: str, target: str, current: str | None, actor: str, reason: str, gone: Sequence[RolloutRow]
) -> None:
    ports.audit.append(
        actor=actor, action="rollback", agent=agent, subject=target,
        detail={"from": current, "why": reason, "rollouts": [row.id for row in gone]},
    )  # fmt: skip


def _audited(ports: Ports, row: RolloutRow, target: str) -> bool:
    return ports.audit.has(agent=row.agent, subject=target, actions={"rollback"}, detail={"rollouts": [row.id]})
