"""A person's part: the question with its evidence, and the answer into our own table.

Both start from the stored gate report of the claim's own attempt. What Airflow keeps (the form, task states, XCom) can be
written by whoever may edit a run, so nothing of it is read here but who answered what.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote
from uuid import UUID

from perennial.domain.job import BatchRef
from perennial.domain.words import GateAction, Mode
from perennial.errors import PromotionRefused, RegistryError
from perennial.flows.ports import Ports
from perennial.flows.questions import rule_of
from perennial.gates.evidence import Asked, evidence
from perennial.ingest.postgres_jobs import own_id
from perennial.registry.ledger import version_part
from perennial.registry.permission import approving, person, why_void
from perennial.registry.rows import Approval, Question, StoredReport
from perennial.settings import without_login

logger = logging.getLogger(__name__)

APPROVAL_HOURS = 72.0


def requester_of(ports: Ports, job_id: UUID) -> str:
    """The person who asked for a training; empty when a machine did, or when nobody vouches for the name.

    Airflow vouches for whoever triggered a run, and such a job bears the run's own id. A job that was made before its run (by
    the client, or brought along as ``job_id``) names whoever its maker said.
    """
    job = ports.buffer.job(job_id)
    return person(job.requested_by, {ports.settings.airflow_user}) if own_id(job) else ""


def question(ports: Ports, ref: BatchRef, run_id: str) -> dict[str, Any]:
    """What to ask about this attempt: ``subject`` and ``body`` (Markdown) of the form, made from the stored report.

    ``granted``: enough people approved these very bytes already, named in ``actor``; then nobody is asked. Raises
    PromotionRefused when the gates did not ask for a person, when the claim is another run's, or when the form of this run
    still shows another attempt's evidence, which Airflow would keep.
    """
    report = _waiting(ports, ref, run_id)
    found = _approving(ports, ref, report)
    rule, requested_by = rule_of(ports, ref.agent), requester_of(ports, ref.job_id)
    if len(found) >= rule.needed(requested_by):
        return {"granted": True, "actor": ", ".join(approval.actor for approval in found)}
    version, part = _intended(ports, ref, report)
    body = evidence(
        report.report,
        Asked(
            agent=ref.agent, version=version, part=part, digest=report.content_digest,
            champion=report.report.get("champion"), reason=ref.reason.value, requested_by=requested_by,
            approvers=rule.approvers, two_person=rule.two_person, needed=rule.needed(requested_by), hours=APPROVAL_HOURS,
            links=_links(ports, ref, report.report.get("champion"), run_id),
        ),
    )  # fmt: skip
    shown = hashlib.sha256(body.encode()).hexdigest()
    earlier = ports.ledger.questions(job_id=ref.job_id)
    if any(asked.attempt != ref.attempt and asked.body_digest != shown for asked in earlier):
        raise PromotionRefused(
            "the form of this run still shows the evidence of an earlier attempt, and Airflow keeps it; start a new run"
        )
    ports.ledger.ask(
        agent=ref.agent, job_id=ref.job_id, attempt=ref.attempt, content_digest=report.content_digest, version=version,
        requested_by=requested_by, body_digest=shown,
    )  # fmt: skip
    return {"granted": False, "subject": f"Release {ref.agent} {version} ({part})?", "body": body}


def record_decision(
    ports: Ports, ref: BatchRef, approved: bool, actor: str, comment: str, *, attributable: bool = True,
    run_id: str | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Write a person's answer, bound to attempt, bytes and version, with an expiry; promotion reads these rows alone.

    An approval that does not count (``attributable`` False, not an approver, the requester under the two-person rule) is
    written too, with the reason. Returns ``approved`` (enough people did), ``actor``, ``why`` not, and ``again``: whether
    somebody else's answer could still do. The audit entry comes before the answer, so that none counts without one; run again
    after a kill in between it writes nothing twice. ``run_id``: of the run whose form was answered, to be the job's own. Raises
    PromotionRefused when this attempt waits for nobody.
    """
    report = _waiting(ports, ref, run_id)
    rule, requested_by = rule_of(ports, ref.agent), requester_of(ports, ref.job_id)
    asked = _asked(ports, ref)
    if asked is not None and asked.content_digest != report.content_digest:
        raise PromotionRefused("the form showed other bytes than the gate judged last; start a new run")
    version = asked.version if asked is not None else _intended(ports, ref, report)[0]
    void = why_void(actor, rule, requested_by=requested_by, attributable=attributable) if approved else ""
    decision = "approve" if approved else "reject"
    given = ports.ledger.decisions(job_id=ref.job_id)
    if not _written_already(ports, ref, given, decision, actor, void):
        word = "approval_void" if void else "approved" if approved else "rejected"
        # which of this person's answers it is tells a second one from the repeat of a killed one
        answer = 1 + sum((row.attempt, row.actor) == (ref.attempt, actor) for row in given)
        one = {"attempt": ref.attempt, "answer": answer}
        if not ports.audit.has(agent=ref.agent, subject=str(ref.job_id), actions={word}, actor=actor, detail=one):
            ports.audit.append(
                actor=actor, action=word, agent=ref.agent, subject=str(ref.job_id),
                detail={
                    **one, "content_digest": report.content_digest, "version": version, "comment": comment,
                    **({"void": void} if void else {}),
                },
            )  # fmt: skip
        ports.ledger.add_approval(
            agent=ref.agent, job_id=ref.job_id, attempt=ref.attempt, content_digest=report.content_digest,
            version=version, decision=decision, actor=actor, requested_by=requested_by, void=void, comment=comment,
            hours=APPROVAL_HOURS,
        )  # fmt: skip
    if not approved:
        return {"approved": False, "actor": actor, "why": comment, "again": False}
    count, needed = len(_approving(ports, ref, report)), rule.needed(requested_by)
    why = void or ("" if count >= needed else f"{count} of {needed} people approved")
    return {"approved": count >= needed, "actor": actor, "why": why, "again": count < needed and attributable}


def _waiting(ports: Ports, ref: BatchRef, run_id: str | None) -> StoredReport:
    if run_id is not None and ports.buffer.run_of_job(ref.job_id) != run_id:
        raise PromotionRefused("the claim that this run shows belongs to another run; start a new run")
    report = ports.ledger.gate_report(ref.job_id)
    if report is None or report.attempt != ref.attempt or GateAction(report.action) is not GateAction.APPROVE:
        raise PromotionRefused(
            f"attempt {ref.attempt} of job {ref.job_id} does not wait for an approval; clear its run from `claim` on"
        )
    return report


def _approving(ports: Ports, ref: BatchRef, report: StoredReport) -> tuple[Approval, ...]:
    return approving(
        ports.ledger.decisions(job_id=ref.job_id), rule_of(ports, ref.agent), content_digest=report.content_digest,
        attempt=ref.attempt, requested_by=requester_of(ports, ref.job_id), at=ports.ledger.now(),
    )  # fmt: skip


def _asked(ports: Ports, ref: BatchRef) -> Question | None:
    found = ports.ledger.questions(job_id=ref.job_id)
    return next((asked for asked in found if asked.attempt == ref.attempt), None)


def _intended(ports: Ports, ref: BatchRef, report: StoredReport) -> tuple[str, str]:
    part = version_part(
        batch=ref.mode is Mode.BATCH, new_labels=bool(report.report.get("new_labels")),
        new_base=report.report.get("champion") is None,
    )  # fmt: skip
    return ports.ledger.next_version(ref.agent, part), part


def _written_already(
    ports: Ports, ref: BatchRef, given: Sequence[Approval], decision: str, actor: str, void: str
) -> bool:
    last = next(iter(given), None)
    same = last is not None and (last.attempt, last.decision.value, last.actor, last.void) == (
        ref.attempt, decision, actor, void,
    )  # fmt: skip
    return same and last is not None and last.expires_at > ports.ledger.now()


def _links(ports: Ports, ref: BatchRef, champion: str | None, run_id: str) -> dict[str, str]:
    """The run with the gate's log, and the version that would be replaced; without MLflow the first alone."""
    links = {
        "this training in Airflow, with the gate's log": (
            f"{without_login(ports.settings.airflow_url).rstrip('/')}/dags/train_{ref.agent}/runs/{quote(run_id, safe='')}"
        )
    }
    if champion is None:
        return links
    try:
        found = ports.models.links(ref.agent, champion)
    except RegistryError as error:
        logger.warning("the question comes without links to MLflow: %s", error)
        return links
    named = {"version_url": f"{champion} in MLflow", "run_url": f"the training of {champion} in MLflow"}
    return links | {title: found[name] for name, title in named.items() if name in found}
