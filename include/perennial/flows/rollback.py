"""A person puts an earlier version back."""

from __future__ import annotations

from typing import Any

from perennial.errors import RolloutError
from perennial.flows.champion import bundle_folder
from perennial.flows.ports import Ports
from perennial.flows.retention import check_files_are_there
from perennial.flows.rollout import align_targets, settle_revert


def rollback_agent(ports: Ports, agent: str, *, actor: str, reason: str, version: str | None = None) -> dict[str, Any]:
    """Serve ``version`` (default: the champion before the present one) again, with the same bytes; history stays.

    Raises RolloutError when there is no such version, FilesRemoved when retention took its files, UntrustedBundle when its bytes
    do not agree with the ledger.
    """
    current = ports.ledger.champion(agent)
    target = version or ports.rollouts.previous_champion(agent)
    if target is None:
        raise RolloutError(f"{agent} has no earlier version to go back to; `perennial models {agent}` lists them")
    if target == current:
        raise RolloutError(f"{agent} serves {target} already")
    check_files_are_there(ports, agent, target)  # a copy that still lies on this machine does not count
    bundle_folder(ports, agent, target)
    ports.rollouts.rollback(agent, target, actor=actor, reason=reason)
    ports.audit.append(
        actor=actor, action="rollback", agent=agent, subject=target, detail={"from": current, "why": reason}
    )
    ports.buffer.record_performance(
        agent=agent, model_name=f"{agent}-{current}", before=None, after=None, examples=0, rollback=True, job_id=None,
        version=current, detail={"reason": reason, "by": actor, "back_to": target},
    )  # fmt: skip
    for row in ports.rollouts.reverted_lately(60.0):
        if row.agent == agent and row.reason == reason:
            settle_revert(ports, row, action="reverted", actor=actor)
    align_targets(ports, agent)
    return {"agent": agent, "from": current, "to": target}
