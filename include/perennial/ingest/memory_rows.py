"""The rows of the in-memory buffer and the rules that every part of it uses."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from perennial.domain.example import Example, TrainingRow
from perennial.domain.redaction import Doubt
from perennial.domain.words import JSON, RedactionState, Source, State
from perennial.ingest.digests import input_digest, plain_digest
from perennial.ingest.results import Job, Offset, Performance, Rejection

_HOLDS_NOTHING = frozenset({State.QUARANTINED, State.PURGED, State.EVICTED, State.SUPERSEDED})  # of corrections
_WAITS = frozenset({State.RAW, State.READY, State.UNLABELLED, State.HELD})  # what a correction overtakes altogether


def now() -> datetime:
    """The present moment, UTC."""
    return datetime.now(UTC)


@dataclass
class Row:
    """One stored example; mutable, touched under the buffer's lock alone."""

    number: int
    example: Example
    task: str
    state: State
    correction: bool
    holdout: bool
    input_digest: bytes
    content_digest: bytes
    added_at: datetime
    answer: JSON = None  # the model's answer that it was sent with; ``example`` holds what of it may stand
    text: str | None = None
    label: JSON = None
    feedback: str | None = None
    reason: str = ""
    superseded_by: UUID | None = None
    job_id: UUID | None = None
    attempt: int | None = None
    refusals: int = 0
    model_version: str | None = None
    learned: str | None = None
    admitted_at: datetime | None = None
    trained_at: datetime | None = None
    redaction: dict[str, Any] | None = None

    @property
    def waiting(self) -> bool:
        fair_sample = self.example.source is Source.SAMPLE and (self.holdout or self.state is State.RAW)
        return self.state in (State.RAW, State.READY) and self.job_id is None and not fair_sample

    @property
    def regression(self) -> bool:
        return self.correction and self.example.priority >= 2

    @property
    def worth(self) -> tuple[int, float, float, datetime, int]:
        one = self.example
        return int(one.priority), one.importance, one.uncertainty, one.created_at, self.number

    def as_training_row(self) -> TrainingRow:
        one = self.example
        return TrainingRow(
            example_id=one.example_id, task=self.task, text=self.text or "", label=self.label,
            priority=int(one.priority), correction=self.correction, source_id=one.source_id, created_at=one.created_at,
            job_id=self.job_id if self.holdout else None,
        )  # fmt: skip


def content_digest(example: Example, task: str, *, correction: bool, after: UUID | None) -> bytes:
    """What makes two records the same: agent, task, input, expected output, and a repeated correction's predecessor."""
    parts = [example.agent, task, json.dumps(example.expected_output, sort_keys=True), example.input_text]
    parts += (["correction", str(after)] if after else ["correction"]) if correction else []
    return hashlib.sha256("\x1f".join(parts).encode()).digest()


@dataclass
class Asked:
    """One redaction task; mutable, touched under the buffer's lock alone."""

    number: int
    agent: str
    task: str
    kinds: dict[str, int]
    doubts: tuple[Doubt, ...]
    words: set[str]
    example_ids: list[UUID]
    version: str
    opened_at: datetime
    state: RedactionState = RedactionState.OPEN
    round: int = 1
    cleared: set[str] = field(default_factory=set)


@dataclass
class MemoryState:
    """All that the in-memory buffer holds."""

    lock: threading.RLock = field(default_factory=threading.RLock)
    salt: bytes = field(default_factory=lambda: os.urandom(32))
    rows: list[Row] = field(default_factory=list)
    agents: dict[str, dict[str, Any]] = field(default_factory=dict)  # the records of sync_agents, with "active"
    counters: dict[tuple[str, str], int] = field(default_factory=dict)
    offsets: dict[tuple[str, str], Offset] = field(default_factory=dict)
    rejected: list[Rejection] = field(default_factory=list)
    overrides: dict[str, float] = field(default_factory=dict)
    set_by: dict[str, str] = field(default_factory=dict)
    jobs: dict[UUID, Job] = field(default_factory=dict)
    history: list[Performance] = field(default_factory=list)
    outcomes: list[tuple[str, float]] = field(default_factory=list)
    announced: list[dict[str, Any]] = field(default_factory=list)
    asked: dict[tuple[str, bytes], Asked] = field(default_factory=dict)  # by agent and keyed digest of the original

    def of(self, agent: str) -> Iterator[Row]:
        """Rows of one agent, oldest first."""
        return (row for row in self.rows if row.example.agent == agent)

    def limit(self, agent: str, name: str) -> float:
        """What holds for an agent: its own declaration, an override, the deployment's setting."""
        record = self.agents[agent]
        if record["record"].get(name) is not None:
            return float(record[name])
        return self.overrides.get(name, float(record[name]))

    def add_to_counter(self, agent: str, name: str, amount: int) -> None:
        """Count something."""
        if amount > 0:
            self.counters[agent, name] = self.counters.get((agent, name), 0) + amount

    def latest_correction(self, digest: bytes, but: UUID, *, dropped: bool = False) -> Row | None:
        """The newest correction of an input that was not refused; with ``dropped`` also one that a person dropped."""
        aside = {State.QUARANTINED, State.PURGED} | (set() if dropped else {State.EVICTED})
        for row in reversed(self.rows):
            if (
                row.correction
                and row.input_digest == digest
                and row.state not in aside
                and row.example.example_id != but
            ):
                return row
        return None

    def restore_corrected(self, gone: set[UUID]) -> None:
        """What these corrections had overtaken goes to the newest other one that holds and is newer, or waits again."""
        for row in [row for row in self.rows if row.superseded_by in gone]:
            row.superseded_by = self._outranking(row, gone)
            if row.superseded_by is None:
                self._wait_again(row)

    def _outranking(self, row: Row, gone: set[UUID]) -> UUID | None:
        newer = [
            other.example.example_id for other in self.rows
            if other.correction and other.input_digest == row.input_digest and other is not row
            and other.state not in _HOLDS_NOTHING and other.example.example_id not in gone
            and (not row.correction or other.number > row.number)
        ]  # fmt: skip
        return newer[-1] if newer else None

    def overtake(self, row: Row) -> None:
        """A correction that came while the row stood aside did not see it; see ``overtaken`` in admit.sql."""
        if row.state in (State.READY, State.UNLABELLED) and row.superseded_by is None:
            row.superseded_by = self._outranking(row, set())
            if row.superseded_by is not None:
                row.state, row.reason = State.SUPERSEDED, "corrected_before"

    def supersede(self, winner: Row) -> None:
        """A correction outranks every older row of its input; one that is released later does not outrank what came after it."""
        for row in self.rows:
            newer = row.number >= winner.number
            if newer or row.input_digest != winner.input_digest or row.superseded_by is not None:
                continue
            if row.state in (State.CLAIMED, State.TRAINED):
                row.superseded_by = winner.example.example_id
            elif row.state in _WAITS:
                row.superseded_by = winner.example.example_id
                row.state, row.reason = State.SUPERSEDED, "corrected"

    def take_back(self, row: Row) -> None:
        """Mark a row as overtaken by nothing but its sender's second thought."""
        if row.superseded_by is not None or row.state in (State.SUPERSEDED, State.EVICTED, State.PURGED):
            return
        row.superseded_by = row.example.example_id
        if row.state in _WAITS:
            row.state, row.reason = State.SUPERSEDED, "corrected"

    def bring_back(self, row: Row) -> None:
        """Let a row that was taken back wait again, unless a correction of its input holds by now."""
        held = any(
            other.correction and other.input_digest == row.input_digest and other is not row
            and other.state not in _HOLDS_NOTHING
            for other in self.rows
        )  # fmt: skip
        if held or row.state in (State.EVICTED, State.PURGED):
            return
        row.superseded_by = None
        self._wait_again(row)

    def _wait_again(self, row: Row) -> None:
        if row.state is State.SUPERSEDED:
            row.reason = ""
            labelled = row.example.expected_output is not None
            row.state = State.UNLABELLED if not labelled else State.READY if row.admitted_at else State.RAW

    def release(self, row: Row) -> None:
        """A claimed row waits again, unless a correction overtook it."""
        row.job_id = row.attempt = None
        row.state = State.READY if row.superseded_by is None else State.SUPERSEDED

    def change_job(self, job_id: UUID, **changes: Any) -> Job:
        """Store a job with some fields changed."""
        self.jobs[job_id] = replace(self.jobs[job_id], **changes)
        return self.jobs[job_id]


def digest_of(example: Example, task: str) -> bytes:
    """The input digest of an example under the name of its task."""
    return input_digest(example.agent, task, plain_digest(example.input_text))
