"""Which questions to people still wait for an answer. Apart from the steps of a training, so that a page can ask without loading those."""

from __future__ import annotations

from uuid import UUID

from perennial.flows.ports import Ports
from perennial.registry.permission import Rule, approving
from perennial.registry.rows import Decision, Question


def rule_of(ports: Ports, agent: str) -> Rule:
    """Who may approve this agent's candidates, as its fleet file says now."""
    gates = ports.fleet().agent(agent).gates
    return Rule(two_person=gates.two_person, approvers=gates.approvers)


def open_questions(ports: Ports, agent: str | None = None, job_id: UUID | None = None) -> tuple[Question, ...]:
    """Questions that still wait for somebody, newest first; of one agent, of one job, or of all."""
    return tuple(asked for asked in ports.ledger.questions(agent=agent, job_id=job_id) if _is_open(ports, asked))


def _is_open(ports: Ports, asked: Question) -> bool:
    job, now = ports.buffer.job(asked.job_id), ports.ledger.now()
    alive = job.completed_at is None and job.lease_until is not None and job.lease_until > now
    if not alive or job.attempt != asked.attempt:
        return False
    answers = [row for row in ports.ledger.decisions(job_id=asked.job_id) if row.attempt == asked.attempt]
    if answers and answers[0].decision is Decision.REJECT:
        return False
    rule = rule_of(ports, asked.agent)
    found = approving(
        answers,
        rule,
        content_digest=asked.content_digest,
        attempt=asked.attempt,
        requested_by=asked.requested_by,
        at=now,
    )
    return len(found) < rule.needed(asked.requested_by)
