"""From raw to ready: checks each waiting record and replaces personal data, with the one role that may read originals."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from perennial.domain.words import JSON, TaskKind
from perennial.errors import GuardError, NotConfigured
from perennial.fleet.agent import Agent
from perennial.flows.ports import Ports
from perennial.flows.quiet import quiet
from perennial.guard.records import RecordReason, check_record
from perennial.guard.redactor import Redactor, redactor_for
from perennial.ingest.admit import Admitted, Examine, Refused

logger = logging.getLogger(__name__)


@quiet
def admit_agent(ports: Ports, agent_name: str) -> dict[str, Any]:
    """Admit every raw row of one agent; returns counts by outcome. Safe to run twice at once and again after a kill."""
    if ports.admission is None:
        raise NotConfigured("PERENNIAL_ADMIT_DATABASE_URL", "the admit step needs the role that may read originals")
    agent = ports.fleet().agent(agent_name)
    outcome = ports.admission.run(agent_name, examiner(agent), personal(agent))
    released = {
        task.name: ports.buffer.release_new_labels(agent_name, task.name, task.new_label_rows)
        for task in agent.tasks
        if task.kind is TaskKind.CLASSIFICATION and task.labels is None
    }
    return {**outcome.as_dict(), "released": sum(released.values())}


def personal(agent: Agent) -> Callable[[str], bool]:
    """Whether a model's answer that came along is no label but personal data; true when no detector can look."""
    known = frozenset(label for task in agent.tasks for label in task.labels or ())

    def holds(text: str) -> bool:
        try:
            return text not in known and bool(redactor_for(names=agent.redact_names).scan(text))
        except GuardError:
            return True

    return holds


def examiner(agent: Agent) -> Examine:
    """How this agent's records are checked and redacted. Raises GuardUnavailable when the detector cannot be built."""
    redactor: Redactor | None = None

    def examine(task: str, text: str, expected: JSON, feedback: str | None) -> Admitted | Refused:
        nonlocal redactor
        redactor = redactor or redactor_for(names=agent.redact_names)
        spec = agent.task(task)
        reason = check_record(text, expected, kind=spec.kind, labels=spec.labels, max_length=spec.max_length)
        if reason is not None:
            return Refused(reason=reason)
        if isinstance(expected, str) and spec.labels is None and redactor.scan(expected):
            return Refused(
                reason=RecordReason.LABEL_FORM
            )  # a label that the agent does not declare, and a person's data
        body = redactor.redact(text)
        note = redactor.redact(feedback) if feedback else None
        label = redactor.redact_json(expected) if isinstance(expected, dict | list) else expected
        return Admitted(
            text=body.text, expected_output=label, feedback=note.text if note else None,
            counts=dict(body.counts), version=body.version,
        )  # fmt: skip

    return examine
