"""From an Airflow run to the wish for one training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

from perennial.domain.job import JobRequest
from perennial.domain.words import Mode, Reason
from perennial.guard.said import said


def request_of(agent: str, context: Mapping[str, Any]) -> JobRequest:
    """The request that a run's context states: its params form or conf, or the asset events that started it."""
    run = context["dag_run"]
    reasons = list(event_reasons(run.consumed_asset_events))
    return build_request(
        agent=agent, run_id=str(run.run_id), params=context["params"], reasons=reasons, user=run.triggering_user_name
    )


def build_request(
    *, agent: str, run_id: str, params: Mapping[str, Any], reasons: list[Reason], user: str | None
) -> JobRequest:
    """``reasons`` of asset events win over the form's, since nobody filled a form for such a run; a correction wins among them.

    >>> request = build_request(agent="scout", run_id="r", params={"mode": "auto", "force": False}, user=None,
    ...                         reasons=[Reason.THRESHOLD, Reason.CORRECTION])
    >>> request.reason.value, request.requested_by
    ('correction', 'perennial')
    """
    reason = Reason(params.get("reason") or Reason.REQUEST)
    if reasons:
        reason = Reason.CORRECTION if Reason.CORRECTION in reasons else reasons[-1]
    job_id = params.get("job_id")
    return JobRequest(
        agent=agent, run_id=run_id, reason=reason, mode=Mode(params.get("mode") or Mode.AUTO),
        force=bool(params.get("force", False)), requested_by=user or "perennial",
        why=said(str(params.get("why") or "")), overrides=dict(params.get("overrides") or {}), job_id=UUID(job_id) if job_id else None,
    )  # fmt: skip


def event_reasons(events: Iterable[Any]) -> Iterable[Reason]:
    """The reasons that the watcher put into the events; an event made by hand says nothing and counts as a request."""
    for event in events:
        payload = (event.extra or {}).get("payload")
        word = payload.get("reason") if isinstance(payload, dict) else None
        yield Reason(word) if word in set(Reason) else Reason.REQUEST


def outcome_of(*, released: bool, action: str | None, approved: bool | None, stopped: str | None) -> str:
    """How a training ended, from what its tasks said: the word that settle takes.

    >>> outcome_of(released=False, action="approve", approved=False, stopped=None)
    'rejected'
    >>> outcome_of(released=False, action="pass", approved=None, stopped=None)
    'failed'
    """
    if released:
        return "registered"
    if action == "hold":
        return "held"
    if action == "approve" and approved is False:
        return "rejected"
    return stopped or "failed"
