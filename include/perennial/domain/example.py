"""One example on its way in (``Example``) and on its way to a trainer (``TrainingRow``)."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID

from perennial.domain.words import JSON, Priority, Source


def new_id() -> UUID:
    """A UUID of version 7 (RFC 9562): milliseconds, then randomness, so that indexes of ids grow at their end.

    >>> new_id().version
    7
    """
    milliseconds = time.time_ns() // 1_000_000
    value = (milliseconds << 80) | int.from_bytes(os.urandom(10), "big")
    return UUID(int=(value & ~(0xF000 << 64) & ~(0xC000 << 48)) | (0x7000 << 64) | (0x8000 << 48))


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """A checked record as it enters the buffer; only ``ingest.checks`` makes one from foreign input.

    ``expected_output`` is any JSON value; None means unlabelled. Scores lie in [0, 1]; times are UTC.
    """

    agent: str
    task: str
    input_text: str
    expected_output: JSON
    uncertainty: float
    importance: float = 0.5
    priority: Priority = Priority.LOW
    source: Source = Source.EXAMPLE
    source_url: str = ""
    source_id: str = ""  # who sent it: a user, a labeller, a service; caps per source use it
    tag: str = ""  # why a person corrected it: manual, qa, domain_expert, critical_error
    user_feedback: str | None = None
    predicted_output: JSON = None
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    example_id: UUID = field(default_factory=new_id)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingRow:
    """One redacted, labelled row as trainers and evaluations see it."""

    example_id: UUID
    task: str
    text: str
    label: JSON
    priority: int = 0
    correction: bool = False
    source_id: str = ""
    created_at: datetime | None = None
    job_id: UUID | None = None  # of a holdout row: the training that it came in with
