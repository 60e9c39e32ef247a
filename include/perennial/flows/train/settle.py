"""Close the job: mark what was trained, give back what was not, and say in one line what happened."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from perennial.domain.job import BatchRef
from perennial.domain.words import GateAction, JobStatus, TaskKind
from perennial.errors import RegistryError, StaleClaim
from perennial.flows.ports import Ports
from perennial.flows.train.register import metrics_of
from perennial.flows.workspace import Workspace
from perennial.gates import corrections
from perennial.gates.scores import is_right

logger = logging.getLogger(__name__)

OUTCOMES = ("registered", "held", "rejected", "failed", "cancelled")


def settle(ports: Ports, ref: BatchRef, outcome: str) -> dict[str, Any]:
    """End one attempt. ``outcome`` is one of registered, held, rejected, failed, cancelled.

    Registered: the rows are marked ``trained`` with the version, corrections that the candidate answers right are marked
    learned. Otherwise the rows go back; after two refusals they are ``held`` for a person. When nothing but corrections that
    were not learned held the candidate, the refusal counts for those alone. Always safe to repeat.
    """
    if outcome not in OUTCOMES:
        raise ValueError(f"{outcome!r} is not one of {', '.join(OUTCOMES)}")
    space = Workspace.of(ports.work, ref)
    released = ports.ledger.version_of_job(ref.job_id)
    try:
        if released is not None:
            note = _settle_registered(ports, ref, space, released.version)
        else:
            note = _settle_unregistered(ports, ref, space, outcome)
    except StaleClaim:
        # an earlier try of this very task closed the job already, or a newer attempt owns it: nothing is left to do
        job = ports.buffer.job(ref.job_id)
        if job.completed_at is not None:  # nobody needs its texts any more; a try that was killed left them
            space.remove()
        return {"note": job.note or "closed by another attempt", "version": job.version}
    space.remove()
    return {"note": note, "version": released.version if released else None}


def _settle_registered(ports: Ports, ref: BatchRef, space: Workspace, version: str) -> str:
    evaluation = space.read_json("evaluation.json") if space.has("evaluation.json") else {"tasks": {}, "champion": None}
    learned = [
        identity
        for record in evaluation["tasks"].values()
        for part in ("corrections", "regression")
        for identity, value in zip(record[part]["ids"], record[part]["candidate"], strict=True)
        if is_right(TaskKind(record["kind"]), value)
    ]
    before, after = _accuracy(evaluation, "champion"), _accuracy(evaluation, "candidate")
    count = ports.buffer.settle_trained(ref.job_id, ref.attempt, version)
    ports.buffer.mark_learned(learned, version)
    note = f"{ref.agent} {version} registered after {count} rows ({ref.reason.value}, {ref.mode.value}): {_change(before, after)}"
    ports.buffer.record_performance(
        agent=ref.agent, model_name=f"{ref.agent}-{version}", before=before, after=after, examples=count, rollback=False,
        job_id=ref.job_id, version=version, detail=_detail(evaluation),
    )  # fmt: skip
    ports.buffer.finish(ref.job_id, ref.attempt, JobStatus.COMPLETED, note=note, version=version)
    return note


def _settle_unregistered(ports: Ports, ref: BatchRef, space: Workspace, outcome: str) -> str:
    refused = outcome in {"held", "rejected"}
    counts = refused or outcome == "failed"  # a batch that fails again and again must not train for ever
    evaluation = space.read_json("evaluation.json") if space.has("evaluation.json") else None
    report = space.read_json("gate_report.json") if space.has("gate_report.json") else {}
    summary = report.get("summary", "")
    missed = missed_corrections(report) if outcome == "held" else frozenset()
    spared = [row.example_id for row in ports.buffer.claimed_rows(ref.job_id, ref.attempt)] if missed else []
    returned = ports.buffer.give_back(
        ref.job_id, ref.attempt, refused=counts, reason=f"{outcome}: {summary}"[:500],
        spared=[identity for identity in spared if str(identity) not in missed],
    )  # fmt: skip
    if evaluation is not None:
        ports.buffer.record_performance(
            agent=ref.agent, model_name=f"{ref.agent}-{outcome}", before=_accuracy(evaluation, "champion"),
            after=_accuracy(evaluation, "candidate"), examples=ref.count, rollback=refused, job_id=ref.job_id, version=None,
            detail=_detail(evaluation),
        )  # fmt: skip
    note = f"{ref.agent}: candidate {outcome}, {returned} rows given back. {summary}".strip()
    if refused and evaluation is not None:
        _keep_numbers(ports, ref, space, outcome, summary)
    status = JobStatus.COMPLETED if refused else JobStatus.CANCELLED if outcome == "cancelled" else JobStatus.FAILED
    ports.buffer.finish(ref.job_id, ref.attempt, status, note=note, error=None if refused else outcome)
    return note


def missed_corrections(report: Mapping[str, Any]) -> frozenset[str]:
    """Ids of the corrections that alone are to blame for a hold; empty when anything else was held against the candidate.

    >>> evidence = {"tasks": {"topic": {"action": "hold", "missed_ids": ["a"], "unlearned_ids": []}}}
    >>> held = {"gate": "corrections", "action": "hold", "evidence": evidence}
    >>> sorted(missed_corrections({"verdicts": [held, {"gate": "slices", "action": "pass"}]}))
    ['a']
    >>> sorted(missed_corrections({"verdicts": [held, {"gate": "slices", "action": "hold"}]}))
    []
    """
    holding = [verdict for verdict in report.get("verdicts", ()) if verdict["action"] == GateAction.HOLD.value]
    if [verdict["gate"] for verdict in holding] != [corrections.NAME]:
        return frozenset()
    tasks = [task for task in holding[0]["evidence"]["tasks"].values() if task["action"] == GateAction.HOLD.value]
    if any(task.get("unlearned_ids") or not task.get("missed_ids") for task in tasks):
        return frozenset()
    return frozenset(identity for task in tasks for identity in task["missed_ids"])


def _keep_numbers(ports: Ports, ref: BatchRef, space: Workspace, outcome: str, summary: str) -> None:
    """A run in MLflow for a candidate that was not released. Our own history has its numbers too, so MLflow may be away."""
    tags = {
        "run_id": ports.buffer.run_of_job(ref.job_id),
        "reason": ref.reason.value,
        "mode": ref.mode.value,
        "outcome": outcome,
    }
    try:
        ports.models.record_refused(ref.agent, job_id=ref.job_id, summary=summary, metrics=metrics_of(space), tags=tags)
    except RegistryError as error:
        logger.warning(
            "the numbers of the refused candidate of job %s are not in the model store: %s", ref.job_id, error
        )


def _accuracy(evaluation: dict[str, Any], arm: str) -> float | None:
    """Mean over the trained tasks of each task's mean score, or None when none was measured."""
    values = [record["summary"][arm] for record in evaluation["tasks"].values() if record["summary"][arm] is not None]
    return sum(values) / len(values) if values else None


def _detail(evaluation: dict[str, Any]) -> dict[str, Any]:
    return {task: record["summary"] for task, record in evaluation["tasks"].items()}


def _change(before: float | None, after: float | None) -> str:
    if after is None:
        return "no holdout to measure on"
    return f"{after:.1%} right" if before is None else f"{before:.1%} -> {after:.1%} right"
