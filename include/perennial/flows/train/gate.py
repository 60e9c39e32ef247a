"""Numbers to a verdict, and a person's decision into our own table."""

from __future__ import annotations

import logging
import time
from dataclasses import asdict
from typing import Any

from perennial.domain.job import BatchRef
from perennial.domain.words import GateAction
from perennial.flows.ports import Ports
from perennial.flows.train.claim import LEASE_SECONDS
from perennial.flows.workspace import Workspace
from perennial.gates.gate import GateSettings
from perennial.gates.report import judge
from perennial.gates.scores import Evaluation
from perennial.selection.page import screening_page

logger = logging.getLogger(__name__)

APPROVAL_HOURS = 72.0


def gate(ports: Ports, ref: BatchRef) -> dict[str, Any]:
    """Ask every gate, store the report bound to the candidate's bytes, and return the action with a readable page.

    Fails closed: a number that is missing holds. Run again it finds the stored report of this attempt.
    """
    ports.buffer.renew(ref.job_id, ref.attempt, LEASE_SECONDS)
    agent = ports.fleet().agent(ref.agent)
    space = Workspace.of(ports.work, ref)
    evaluation = space.read_json("evaluation.json")
    selection = space.read_json("select.json")
    began = time.monotonic()
    new_labels = {task: entry["new_labels"] for task, entry in selection["tasks"].items() if entry["new_labels"]}
    threshold = ports.buffer.overrides().get("rollback_threshold", ports.settings.rollback_threshold)
    report = judge(
        Evaluation.from_record(evaluation, earlier_versions=bool(ports.ledger.versions(ref.agent))),
        GateSettings.of(asdict(agent.gates), rollback_threshold=threshold),
        major=bool(new_labels),
    )
    ports.jobs.add_cost(ref.job_id, ref.attempt, {"gate": time.monotonic() - began})
    record = {**report.as_dict(), "new_labels": new_labels, "screening": selection.get("screening", {})}
    stored = ports.ledger.add_gate_report(
        agent=ref.agent, job_id=ref.job_id, attempt=ref.attempt, content_digest=evaluation["content_digest"],
        action=report.action, report=record,
    )  # fmt: skip
    space.write_json("gate_report.json", stored)
    ports.audit.append(
        actor="perennial", action=f"gate_{report.action.value}", agent=ref.agent, subject=str(ref.job_id),
        detail={"summary": report.summary, "content_digest": evaluation["content_digest"]},
    )  # fmt: skip
    return {
        "action": report.action.value, "summary": report.summary, "text": report.as_text() + screening_page(record["screening"]),
        "content_digest": evaluation["content_digest"], "major": bool(new_labels),
    }  # fmt: skip


def record_decision(ports: Ports, ref: BatchRef, approved: bool, actor: str, comment: str) -> dict[str, Any]:
    """Write a person's answer, bound to the candidate's bytes and with an expiry; promotion reads this row alone."""
    report = ports.ledger.gate_report(ref.job_id)
    if report is None or GateAction(report.action) is not GateAction.APPROVE:
        raise ValueError(f"job {ref.job_id} does not wait for an approval")
    ports.ledger.add_approval(
        agent=ref.agent, job_id=ref.job_id, content_digest=report.content_digest,
        decision="approve" if approved else "reject", actor=actor, comment=comment, hours=APPROVAL_HOURS,
    )  # fmt: skip
    ports.audit.append(
        actor=actor, action="approved" if approved else "rejected", agent=ref.agent, subject=str(ref.job_id),
        detail={"content_digest": report.content_digest, "comment": comment},
    )  # fmt: skip
    return {"approved": approved, "actor": actor}
