"""A person's word on an open rollout: abort it, or serve everything now. From the CLI and from the run's form alike."""

from __future__ import annotations

from typing import Any

from perennial.domain.words import RolloutDecision, RolloutState
from perennial.errors import RolloutError
from perennial.flows.champion import bundle_folder
from perennial.flows.ports import Ports
from perennial.flows.rollout import PROMOTED, freeze_of, settle, settle_revert
from perennial.rollout.machine import OPEN
from perennial.rollout.rows import RolloutRow


def decide(
    ports: Ports, agent: str, decision: RolloutDecision, *, actor: str, reason: str, version: str = ""
) -> dict[str, Any]:
    """Carry out one decision on the agent's open rollout; the same decision again changes nothing.

    ``version`` fences it: when another candidate is open by now, nothing happens. The store's state machine has the last word
    under the agent's lock. Raises RolloutError (nothing open, another version, frozen, no name or reason), PromotionRefused or
    UntrustedBundle when a promotion is not covered. Runs in the CLI and in ``verify`` of ``rollout_<agent>``.
    """
    if not actor.strip() or not reason.strip():
        raise RolloutError("a decision on a rollout needs the name of who decides, and a reason")
    row = ports.rollouts.latest(agent)
    if row is None:
        raise RolloutError(f"{agent} has no rollout; `perennial models {agent}` lists its releases")
    if version and row.version != version:
        raise RolloutError(
            f"the rollout of {agent} is by now that of {row.version}, not {version}; look again and decide anew"
        )
    if decision is RolloutDecision.ABORT:
        return _abort(ports, row, actor, reason)
    if decision is RolloutDecision.PROMOTE:
        return _promote(ports, row, actor, reason)
    raise RolloutError("nothing was decided; choose abort or promote")


def named(ports: Ports, agent: str, version: str) -> str:
    """The version that a form means. RolloutError for an empty one: a run that is repeated would decide about whatever is open by then."""
    if version.strip():
        return version.strip()
    row = ports.rollouts.latest(agent)
    if row is None or row.state not in OPEN:
        raise RolloutError(f"the form names no version, and no rollout of {agent} is open; nothing was decided")
    raise RolloutError(
        f"the form names no version; trigger a new run and type {row.version} as its version, if you mean the open candidate"
    )


def _abort(ports: Ports, row: RolloutRow, actor: str, reason: str) -> dict[str, Any]:
    words = f"aborted by {actor}: {reason}"
    if not (row.state is RolloutState.REVERTED and row.reason == words):
        _require_open(row, "`perennial rollback` takes back a champion")
        row = ports.rollouts.revert(row.id, reason=words, actor=actor)
    settle_revert(ports, row, action="rollout_aborted", actor=actor)
    return {"version": row.version, "state": row.state.value, "note": f"{row.agent} {row.version} {words}"}


def _promote(ports: Ports, row: RolloutRow, actor: str, reason: str) -> dict[str, Any]:
    if row.state is not RolloutState.BAKING:
        _require_open(row, "release a new version")
        closed = freeze_of(ports, row.agent)
        if closed is not None:
            raise RolloutError(f"nothing of {row.agent} may be promoted: {closed}")
        bundle_folder(ports, row.agent, row.version)  # bytes, signature and permission
        row = ports.rollouts.promote_full(row.id, actor=actor, reason=f"promoted by {actor}: {reason}")
    settle(ports, row, PROMOTED, action="promoted", actor=actor, detail={"why": reason, "by_hand": True})
    note = f"{row.agent} {row.version} serves everything: promoted by {actor}: {reason}"
    return {"version": row.version, "state": row.state.value, "note": note}


def _require_open(row: RolloutRow, remedy: str) -> None:
    if row.state not in OPEN:
        raise RolloutError(
            f"the newest rollout, {row.agent} {row.version}, is {row.state.value} and not open; {remedy}"
        )
