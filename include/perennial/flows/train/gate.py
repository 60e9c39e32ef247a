"""Numbers to a verdict."""

from __future__ import annotations

import logging
import time
from typing import Any

from perennial.audit.once import append_once
from perennial.domain.job import BatchRef
from perennial.flows.overrides import agent_of
from perennial.flows.ports import Ports
from perennial.flows.quiet import quiet
from perennial.flows.train.claim import LEASE_SECONDS
from perennial.flows.train.evaluate import gate_settings
from perennial.flows.workspace import Workspace
from perennial.gates.report import judge
from perennial.gates.scores import Evaluation
from perennial.selection.page import screening_page

logger = logging.getLogger(__name__)


@quiet
def gate(ports: Ports, ref: BatchRef) -> dict[str, Any]:
    """Ask every gate, store the report bound to the candidate's bytes, and return the action with a readable page.

    Fails closed: a number that is missing holds. Run again it finds the stored report of this attempt, and the audit has its
    verdict once.
    """
    ports.buffer.renew(ref.job_id, ref.attempt, LEASE_SECONDS)
    agent = agent_of(ports, ref)
    space = Workspace.of(ports.work, ref)
    evaluation = space.read_json("evaluation.json")
    selection = space.read_json("select.json")
    began = time.monotonic()
    new_labels = {task: entry["new_labels"] for task, entry in selection["tasks"].items() if entry["new_labels"]}
    report = judge(
        Evaluation.from_record(evaluation, earlier_versions=ports.ledger.ever_served(ref.agent)),
        gate_settings(ports, agent),
        major=bool(new_labels),
    )
    ports.jobs.add_cost(ref.job_id, ref.attempt, {"gate": time.monotonic() - began})
    record = {**report.as_dict(), "new_labels": new_labels, "screening": selection.get("screening", {})}
    stored = ports.ledger.add_gate_report(
        agent=ref.agent, job_id=ref.job_id, attempt=ref.attempt, content_digest=evaluation["content_digest"],
        action=report.action, report=record,
    )  # fmt: skip
    space.write_json("gate_report.json", stored)
    append_once(  # a job's next attempt is judged anew, and stands by itself
        ports.audit, actor="perennial", action=f"gate_{report.action.value}", agent=ref.agent,
        subject=f"{ref.job_id}/{ref.attempt}",
        detail={
            "job_id": str(ref.job_id), "attempt": ref.attempt, "summary": report.summary,
            "content_digest": evaluation["content_digest"],
        },
    )  # fmt: skip
    return {
        "action": report.action.value, "summary": report.summary, "text": report.as_text() + screening_page(record["screening"]),
        "content_digest": evaluation["content_digest"], "major": bool(new_labels),
    }  # fmt: skip
