"""The claimed batch against its expectations, and once more against the detectors of personal data."""

from __future__ import annotations

import logging
from collections import defaultdict
from datetime import UTC, datetime
from typing import Any

from perennial.domain.example import TrainingRow
from perennial.domain.job import BatchRef
from perennial.domain.words import JobStatus
from perennial.errors import GuardError, ValidationFailed
from perennial.flows.overrides import agent_of
from perennial.flows.ports import Ports
from perennial.flows.quiet import quiet
from perennial.flows.scanning import scan
from perennial.flows.train.claim import LEASE_SECONDS
from perennial.guard.validation import validate_batch
from perennial.ingest.admit import REDACTOR_CHANGED

logger = logging.getLogger(__name__)


def by_task(rows: tuple[TrainingRow, ...] | list[TrainingRow]) -> dict[str, list[TrainingRow]]:
    """Rows grouped by task, in order."""
    grouped: dict[str, list[TrainingRow]] = defaultdict(list)
    for row in rows:
        grouped[row.task].append(row)
    return dict(grouped)


@quiet
def validate(ports: Ports, ref: BatchRef) -> dict[str, Any]:
    """Run the Great Expectations suite of each task on the redacted batch and store the counts.

    Raises ValidationFailed, which ends the run and gives the rows back; the stored report names checks and row ids, never values.
    """
    ports.buffer.renew(ref.job_id, ref.attempt, LEASE_SECONDS)
    agent = agent_of(ports, ref)
    summary: dict[str, Any] = {}
    broken: list[str] = []
    for name, rows in by_task(ports.buffer.claimed_rows(ref.job_id, ref.attempt)).items():
        spec = agent.task(name)
        report = validate_batch(
            rows, task=name, kind=spec.kind, labels=spec.labels, max_length=spec.max_length, now=datetime.now(UTC)
        )
        ports.ledger.add_validation(
            agent=ref.agent,
            job_id=ref.job_id,
            attempt=ref.attempt,
            task=name,
            success=report.success,
            report=report.as_dict(),
        )
        failed = [check.name for check in report.checks if not check.success]
        summary[name] = {"rows": len(rows), "success": report.success, "failed": failed}
        broken += [f"{name}: {check}" for check in failed] if not report.success else []
    if broken:
        raise ValidationFailed(
            f"the batch broke {len(broken)} expectation(s): {', '.join(broken)}; "
            "the Validation page has the row ids of the stored report"
        )
    return summary


@quiet
def redact(ports: Ports, ref: BatchRef) -> dict[str, Any]:
    """Look at the redacted batch again; rows in which personal data is still found go to quarantine.

    Rows that another version of the redactor made wait there for the next admission, which redacts them anew by itself; the others
    wait for a person. Raises GuardError when no row is left.
    """
    agent = agent_of(ports, ref)
    rows = ports.buffer.claimed_rows(ref.job_id, ref.attempt)
    found = scan(ports, agent, rows)
    left = found.leaking - found.outdated
    for ids, reason in ((left, "personal_data_left"), (found.outdated, REDACTOR_CHANGED)):
        if ids:
            ports.buffer.set_aside(ref.job_id, ref.attempt, sorted(ids), state="quarantined", reason=reason)
            logger.warning("%s of %s rows still held personal data: quarantined as %s", len(ids), len(rows), reason)
    if len(found.leaking) == len(rows):
        raise GuardError(
            "every row of the batch still held personal data; look at the quarantine before releasing them"
            if left
            else "every row of the batch was redacted by an older redactor; the next harvest redacts them again"
        )
    ports.buffer.advance(ref.job_id, ref.attempt, JobStatus.TRAINING)
    return {"rows": len(rows), "quarantined": len(found.leaking), "scanned": found.looked_at}
