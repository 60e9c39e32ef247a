"""What the ledger answers with: frozen rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from perennial.domain.model import ModelRef
from perennial.registry.recipe import Role

# How the reason of a rollout begins that was reverted because its run was gone before any traffic: the release still waits for one
LOST = "its run was gone before any traffic"
LOST_TRIES = 3  # rollouts of one version that may be lost like that


class Alias(StrEnum):
    """The two names that point at a version of an agent."""

    CHAMPION = "champion"
    CANDIDATE = "candidate"


class Decision(StrEnum):
    """What a person says to a candidate that waits for an approval."""

    APPROVE = "approve"
    REJECT = "reject"


@dataclass(frozen=True, kw_only=True, slots=True)
class Release:
    """One released version as the ledger knows it; ``digest`` pins its bytes and ``order`` its place in time."""

    agent: str
    version: str
    digest: str
    order: int
    base_version: str | None
    job_id: UUID | None
    uri: str
    mlflow_run_id: str | None
    manifest: Mapping[str, Any]
    created_at: datetime

    @property
    def ref(self) -> ModelRef:
        """The name and the digest alone."""
        return ModelRef(agent=self.agent, version=self.version, digest=self.digest)


@dataclass(frozen=True, kw_only=True, slots=True)
class AliasMove:
    """One move of an alias: which version since when, by whom, and why. ``version`` None: the alias was taken away."""

    agent: str
    alias: Alias
    version: str | None
    actor: str
    reason: str
    job_id: UUID | None
    moved_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredReport:
    """A gate report, bound to the bytes that it judged."""

    agent: str
    job_id: UUID
    attempt: int
    content_digest: str
    action: str
    report: Mapping[str, Any]
    created_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class Judgement:
    """What the gates decided about the bytes of one attempt, without the report."""

    attempt: int
    content_digest: str
    action: str
    created_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """What a person was asked: these bytes, to become this version. ``body_digest`` is of the evidence shown (sha256 hex)."""

    agent: str
    job_id: UUID
    attempt: int
    content_digest: str
    version: str
    requested_by: str
    body_digest: str
    asked_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class Approval:
    """A person's decision on exactly these bytes of one attempt, until it expires.

    ``void`` says why an approval does not count (empty: it does). ``version`` is what the bytes were to become and
    ``requested_by`` who asked for the training (empty: no person). ``attempt`` None: written before attempts were.
    """

    id: int
    agent: str
    job_id: UUID
    attempt: int | None
    content_digest: str
    version: str
    decision: Decision
    actor: str
    requested_by: str
    void: str
    comment: str
    expires_at: datetime
    created_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class ExampleUse:
    """One example in one role of one task of one version; ``released_at`` is the version's."""

    agent: str
    version: str
    task: str
    role: Role
    example_id: UUID
    released_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class Validation:
    """What validation said about one task of one attempt: counts and row ids only."""

    agent: str
    job_id: UUID
    attempt: int
    task: str
    success: bool
    report: Mapping[str, Any]
    created_at: datetime
