"""The deployment behind the pages with something that waits for a person: held, quarantined and unlabelled rows, a judged canary."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

from perennial.domain.example import Example
from perennial.domain.job import JobRequest
from perennial.domain.redaction import Doubt
from perennial.domain.words import JSON, Arm, JobStatus
from perennial.ingest.admit import Admitted, Refused
from perennial.ingest.memory import MemoryAdmission
from perennial.ingest.memory_aside import MemoryAside
from perennial.ingest.memory_redaction_tasks import MemoryRedactionTasks
from perennial.rollout.rows import Answered, Outcome
from tests.pages_world import NOW, PagesWorld, make_pages_world

TASK = "topic"


def make_waiting_world(*, full: bool = True) -> PagesWorld:
    """The world of the pages with its store of what stands aside; ``full`` as there."""
    world = make_pages_world(full=full)
    world.ports = replace(
        world.ports, aside=MemoryAside(world.buffer, world.audit), redaction_tasks=MemoryRedactionTasks(world.buffer, world.audit)
    )  # fmt: skip
    return world


def hold(
    world: PagesWorld, texts: list[str], reason: str, *, run: str = "", label: JSON = "sports", **fields: Any
) -> list[UUID]:  # fmt: skip
    """Rows that a training or the screening set aside."""
    return _set_aside(world, texts, "held", reason, run or f"held-{reason}", label, fields)


def leak(world: PagesWorld, texts: list[str]) -> list[UUID]:
    """Rows in which the second look for personal data found some."""
    return _set_aside(world, texts, "quarantined", "personal_data_left", "leak", "sports", {})


def _set_aside(
    world: PagesWorld, texts: list[str], state: str, reason: str, run: str, label: JSON, fields: dict[str, Any]
) -> list[UUID]:  # fmt: skip
    ids = world.add("scout", TASK, texts, label, **fields)
    job = world.buffer.open_job(JobRequest(agent="scout", run_id=run))
    attempt = world.buffer.start_attempt(job, 3600.0)
    assert attempt is not None
    world.buffer.claim("scout", job, attempt, 1000)
    world.buffer.set_aside(job, attempt, ids, state=state, reason=reason)
    world.buffer.finish(job, attempt, JobStatus.CANCELLED)
    return ids


def refuse(world: PagesWorld, texts: list[str], reason: str, *, label: JSON = "sports", task: str = TASK) -> list[UUID]:
    """Rows that admission sends to quarantine; with label None they are unlabelled and admitted."""
    made = [
        Example(agent="scout", task=task, input_text=text, expected_output=label, uncertainty=0.4, created_at=NOW)
        for text in texts
    ]  # fmt: skip

    def examine(of_task: str, text: str, expected: JSON, feedback: str | None) -> Admitted | Refused:
        return Refused(reason=reason) if reason else Admitted(text=text, expected_output=expected, feedback=feedback)

    ids = world.buffer.add_many(made).ids
    MemoryAdmission(world.buffer).run("scout", examine)
    return list(ids)


def ask(world: PagesWorld, texts: list[str]) -> list[UUID]:
    """Admitted rows whose first word no detector is sure of: the word is replaced, and a person is asked."""
    made = [
        Example(agent="scout", task=TASK, input_text=text, expected_output="sports", uncertainty=0.4, created_at=NOW) for text in texts
    ]  # fmt: skip

    def examine(of_task: str, text: str, expected: JSON, feedback: str | None) -> Admitted | Refused:
        word, _, rest = text.partition(" ")
        doubt = Doubt(kind="PERSON", key=f"key {word}", before=text, word=word, after=f" {rest}")
        return Admitted(
            text=f"Qo {rest}", expected_output=expected, feedback=feedback, version="1", doubts=(doubt,), text_key=text.encode(),
        )  # fmt: skip

    ids = world.buffer.add_many(made).ids
    MemoryAdmission(world.buffer).run("scout", examine)
    return list(ids)


def traffic(
    world: PagesWorld, version: str, arm: Arm, requests: int, *, right: float, label: str = "sports", ms: float = 11.0
) -> None:
    """Answers with their outcomes since the canary's step began."""
    dice = random.Random(len(version) + requests)
    now = world.clock()
    for number in range(requests):
        identity = UUID(int=dice.getrandbits(128))
        made = {
            "prediction_id": identity, "agent": "scout", "task": TASK, "version": version, "arm": arm,
        }  # fmt: skip
        world.rollouts.answers.append(
            (now, Answered(**made, input_digest=b"", output="x", confidence=0.9, latency_ms=ms + number % 7))
        )
        world.rollouts.outcomes[identity] = (now, Outcome(**made, actual=label, correct=float(dice.random() < right)))


def judged_canary(world: PagesWorld, *, right: float = 0.86) -> None:
    """Traffic on both arms of scout's canary, a minute into its step."""
    traffic(world, "1.0.0", Arm.CHAMPION, 400, right=0.85)
    traffic(world, "1.0.1", Arm.CANDIDATE, 60, right=right)
    world.clock.now += timedelta(seconds=60)


def validated(
    world: PagesWorld, run: str = "validated", *, broken: bool = False, tasks: Sequence[str] = (TASK,), sender: str = "unnamed",
    note: str = "",
) -> UUID:  # fmt: skip
    """A job with stored validations and a screening; ``broken`` stops it."""
    job = world.buffer.open_job(JobRequest(agent="scout", run_id=run, requested_by="ana"))
    attempt = world.buffer.start_attempt(job, 3600.0)
    assert attempt is not None
    for task in tasks:
        report = {"task": task, "success": not broken, "rows": 72, "checks": _checks(broken)}
        world.ledger.add_validation(
            agent="scout", job_id=job, attempt=attempt, task=task, success=not broken, report=report
        )
    if broken:
        world.buffer.finish(job, attempt, JobStatus.FAILED, note=note, error="the batch broke 1 expectation")
        return job
    world.buffer.update_job_record(job, attempt, dataset={"screening": {task: _screening(sender) for task in tasks}})
    world.buffer.finish(job, attempt, JobStatus.COMPLETED, note=note or "trained")
    return job


def _checks(broken: bool) -> list[dict[str, Any]]:
    doubles = 14 if broken else 1
    return [
        {"name": "text_present", "success": True, "unexpected_count": 0, "row_ids": [], "observed": None},
        {"name": "text_repeats", "success": not broken, "unexpected_count": doubles, "observed": None,
         "row_ids": [str(UUID(int=number)) for number in range(doubles)]},
        {"name": "class_balance", "success": True, "unexpected_count": 0, "row_ids": [], "observed": 0.41},
    ]  # fmt: skip


def _screening(sender: str) -> dict[str, Any]:
    return {
        "rows": 100, "kept": 72, "exempt": [], "held": {"source_cap": 28}, "over_source": 28, "over_young": 0, "source_rows": 2,
        "young_rows": 5, "source_share": 0.02, "young_share": 0.05, "trusted": 70, "released": 1, "self_labelled": 0,
        "holdout_left_out": 3, "more_sources": 4,
        "sources": [
            {"source": "0442f206da", "rows": 30, "kept": 2, "trusted": False, "young": True, "kind": "example"},
            {"source": sender, "rows": 70, "kept": 70, "trusted": True, "young": False, "kind": "sample"},
        ],
    }  # fmt: skip
