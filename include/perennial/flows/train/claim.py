"""Admit what waits, then claim the best rows for one attempt of one job."""

from __future__ import annotations

import logging
from typing import Any
from uuid import UUID

from perennial.audit.once import append_once
from perennial.domain.job import BatchRef, JobRequest
from perennial.domain.words import JobStatus, Mode, Reason
from perennial.fleet.agent import Agent
from perennial.flows.admission import admit_agent
from perennial.flows.overrides import freeze
from perennial.flows.pause import waits
from perennial.flows.ports import Ports

logger = logging.getLogger(__name__)

LEASE_SECONDS = 3600.0  # longer than any task's timeout; renewed by every step
_NOTICED = {Reason.THRESHOLD, Reason.CORRECTION, Reason.DRIFT}


def admit(ports: Ports, agent: str) -> dict[str, Any]:
    """Check and redact the agent's raw rows; they become ready, unlabelled or quarantined."""
    return admit_agent(ports, agent)


def claim(ports: Ports, request: JobRequest) -> BatchRef | None:
    """Claim rows for this run, or None when there is nothing to do or another training of the agent runs.

    A run that an event started (threshold, correction, drift) asks the table again, since events repeat and coalesce; a run
    that a person or a schedule started takes whatever waits. An open circuit breaker or a spent budget ends it with a job that
    says so. Run again after a kill it takes over its own claim under a
    higher attempt, which fences the older one.
    """
    member = ports.fleet().member(request.agent)
    begun = ports.buffer.job_of_run(request.agent, request.run_id)
    reason = request.reason if begun is None else begun.reason  # a repeat goes on as the killed try began
    if begun is None and reason in _NOTICED and not request.force:
        due = ports.buffer.due(request.agent)
        if not due.due:
            logger.info("%s is not due any more: %s waiting", request.agent, due.waiting)
            return None
        reason = due.reason or reason
    if not request.force and (begun is None or begun.attempt == 0):
        why = waits(ports, request.agent, reason)
        if why is not None:
            # a job that says why, so that the run's note and the list of jobs do
            waiting = ports.buffer.open_job(_with_reason(request, reason))
            ports.buffer.cancel_waiting(waiting, f"{request.agent} waits: {why}")
            logger.info("%s does not train now: %s", request.agent, why)
            return None
    job_id = ports.buffer.open_job(_with_reason(request, reason))
    attempt = ports.buffer.start_attempt(job_id, LEASE_SECONDS)
    if attempt is None:
        logger.info("another training of %s runs; its end looks at the buffer again", request.agent)
        ports.buffer.cancel_waiting(job_id, "another training of this agent was running")
        return None
    agent = freeze(ports, member, job_id, attempt)
    mode = resolve_mode(request.mode, reason)
    # two speeds: what an editor corrected is judged by itself, and ordinary rows wait for their threshold
    urgent = reason is Reason.CORRECTION and mode is Mode.ONLINE
    rows = ports.buffer.claim(request.agent, job_id, attempt, agent.selection.batch, urgent=urgent)
    if not rows:
        ports.buffer.finish(
            job_id, attempt, JobStatus.CANCELLED, note="nothing to train: no labelled rows were waiting"
        )
        return None
    recalled = recall(ports, agent, job_id, attempt, reason)
    ports.buffer.absorb_requests(request.agent, job_id)
    if reason is Reason.CORRECTION and max(row.priority for row in rows) >= 3:
        append_once(
            ports.audit, actor="perennial", action="critical_correction_claimed", agent=request.agent, subject=str(job_id),
            detail={"rows": len(rows), "critical": sum(row.priority >= 3 for row in rows)},
        )  # fmt: skip
    return BatchRef(
        agent=request.agent, job_id=job_id, attempt=attempt, mode=mode, reason=reason, count=len(rows) + recalled
    )


def recall(ports: Ports, agent: Agent, job_id: UUID, attempt: int, reason: Reason) -> int:
    """Take in what waits because its source had its share of earlier batches, as far as this one has room; returns how many rows.

    Not for a correction: somebody waits for that one.
    """
    if reason is Reason.CORRECTION:
        return 0
    selection = agent.selection
    return ports.buffer.recall_capped(
        agent.name, job_id, attempt, share=selection.source_share, most=selection.young_share
    )


def resolve_mode(mode: Mode, reason: Reason) -> Mode:
    """How deep to train when the caller left it open.

    >>> resolve_mode(Mode.AUTO, Reason.CORRECTION).value, resolve_mode(Mode.AUTO, Reason.SCHEDULE).value
    ('online', 'batch')
    """
    if mode is not Mode.AUTO:
        return mode
    return Mode.BATCH if reason in {Reason.SCHEDULE, Reason.DRIFT} else Mode.ONLINE


def _with_reason(request: JobRequest, reason: Reason) -> JobRequest:
    from dataclasses import replace

    return replace(request, reason=reason)
