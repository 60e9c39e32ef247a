"""What production says about a version beside its two arms' numbers: refusals of gateways, labels, people's reports, gates."""

from __future__ import annotations

from datetime import datetime

from perennial.domain.verdict import RolloutVerdict
from perennial.domain.words import RolloutAction, TooLittleTraffic
from perennial.errors import PromotionRefused
from perennial.flows.permission import require_served_permission
from perennial.flows.ports import Ports
from perennial.rollout.rows import RolloutRow
from perennial.rollout.verdict import Beside


def refused_by_gateway(ports: Ports, row: RolloutRow) -> RolloutVerdict | None:
    """A rollback when a living gateway's probe of this version failed for good; None when none did."""
    refused = ports.rollouts.gateway_error(row.agent, row.version)
    if not refused:
        return None
    reason = f"a gateway refused it: {refused}"
    return RolloutVerdict(action=RolloutAction.ROLLBACK, reason=reason, evidence={"decided_on": "a gateway's refusal"})


def beside(
    ports: Ports, row: RolloutRow, *, against: str, before: datetime | None, since: datetime, recent: int = 0
) -> Beside:
    """Quality by label of both versions, people who reported, and (where the plan may need it) whether gates cover the candidate.

    ``against`` is the version to compare with, from ``before`` on; the candidate's own outcomes count from ``since`` on.
    ``recent``: so many of its newest outcomes are looked at alone, too; 0: not.
    """
    delay = row.plan.label_delay_seconds
    return Beside(
        champion=ports.rollouts.slices(row.agent, against, since=before, label_delay=delay),
        candidate=ports.rollouts.slices(row.agent, row.version, since=since, label_delay=delay),
        recent=(
            ports.rollouts.slices(row.agent, row.version, since=since, last=recent, label_delay=delay) if recent else {}
        ),
        reporters=ports.rollouts.reporters(row.agent, row.version, within=row.plan.reports_window_seconds),
        gates_passed=row.plan.on_too_little_traffic is TooLittleTraffic.OFFLINE and _gates_passed(ports, row),
    )  # fmt: skip


def _gates_passed(ports: Ports, row: RolloutRow) -> bool:
    try:
        require_served_permission(ports, row.agent, row.version)
    except PromotionRefused:
        return False
    return True
