"""What the buffer answers with: plain frozen values."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from perennial.domain.example import TrainingRow
from perennial.domain.words import JSON, JobStatus, Reason, State


@dataclass(frozen=True, kw_only=True, slots=True)
class AddResult:
    """What became of one add. ``ids`` holds, for each given example in order, the id under which it is stored.

    A duplicate has the id of the row that it repeats. ``quarantined`` rows are among the ``added`` ones. ``skipped``: the
    source's position was not beyond the stored one, so nothing was done at all.
    """

    added: int = 0
    duplicates: int = 0
    quarantined: int = 0
    evicted: int = 0
    ids: tuple[UUID, ...] = ()
    skipped: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Offset:
    """How far one part of a source was read. ``position`` counts records of that part from its beginning."""

    source: str
    part: str
    position: int
    digest: str = ""
    finished: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Rejection:
    """A record that could not become an example: where it stood and why. only the admit role can read ``raw``."""

    source: str
    part: str
    position: int
    field: str
    reason: str
    raw: bytes | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredExample:
    """One row of the buffer. ``input_text`` is redacted, and None until the row is admitted."""

    example_id: UUID
    agent: str
    task: str
    state: State
    input_text: str | None
    expected_output: JSON
    uncertainty: float
    importance: float
    source_url: str
    created_at: datetime
    user_feedback: str | None
    priority: int
    tag: str
    source: str
    reason: str
    model_version: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class KnownRow:
    """What the buffer still knows of one id. ``row`` is None when its text is gone (purged, or never admitted)."""

    state: State
    source: str
    priority: int
    row: TrainingRow | None


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredCorrection:
    """One correction and what became of it. ``row.text`` is redacted, and empty until the row is admitted.

    ``learned``: the version that answered it right first; ``version``: the one that was trained on it.
    """

    row: TrainingRow
    state: State
    learned: str | None
    version: str | None
    refusals: int
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskLimits:
    """One task as the door knows it; ``name`` is the task that an alias stands for."""

    name: str
    kind: str
    labels: tuple[str, ...] | None
    max_length: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Due:
    """Whether an agent should train now. ``waiting`` is exact up to the threshold and not counted beyond it."""

    due: bool
    reason: Reason | None
    waiting: int
    corrections: int
    threshold: int


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldRows:
    """How many rows of one source wait for a person, and why."""

    task: str
    source_id: str
    reason: str
    rows: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One training job as stored."""

    job_id: UUID
    agent: str
    run_id: str
    status: JobStatus
    reason: Reason
    mode: str
    forced: bool
    requested_by: str
    attempt: int
    example_count: int
    version: str | None
    note: str
    error: str | None
    dataset: dict[str, Any]
    config: dict[str, Any]
    lease_until: datetime | None
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Performance:
    """One update in the history, also of refused and rolled back ones. Accuracies lie in [0, 1]; None: not measured."""

    agent_name: str
    model_name: str
    accuracy_before: float | None
    accuracy_after: float | None
    examples_trained: int
    update_timestamp: datetime
    rollback_triggered: bool
    version: str | None = None
    job_id: UUID | None = None
