"""The ledger in memory, for tests and trials without a database; it meets the same contract tests as PostgreSQL's."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from perennial.registry.ledger import (
    Examples,
    asking,
    aware,
    check_clashes,
    examples_of,
    following_version,
    lifetime,
    named,
    same_outcome,
    same_question,
    same_verdict,
    unknown_version,
)
from perennial.registry.manifest import Manifest
from perennial.registry.recipe import Role
from perennial.registry.rows import (
    Alias,
    AliasMove,
    Approval,
    Decision,
    ExampleUse,
    Judgement,
    Question,
    Release,
    StoredReport,
    Validation,
)


class MemoryLedger:
    """See ``Ledger``; lists that only grow, behind one lock. ``clock`` gives the present time in UTC."""

    def __init__(self, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._order = 0
        self._releases: list[Release] = []
        self._moves: list[AliasMove] = []
        self._reports: list[StoredReport] = []
        self._questions: list[Question] = []
        self._approvals: list[Approval] = []
        self._validations: list[Validation] = []
        self._examples: dict[tuple[str, str, str, Role], tuple[UUID, ...]] = {}

    def reserve_order(self) -> int:
        """See ``Ledger``."""
        with self._lock:
            self._order += 1
            return self._order

    def next_version(self, agent: str, part: str) -> str:
        """See ``Ledger``."""
        return following_version((release.version for release in self.versions(agent)), part)

    def record_version(self, manifest: Manifest, *, digest: str, uri: str, mlflow_run_id: str | None) -> Release:
        """See ``Ledger``."""
        manifest.check_complete()
        with self._lock:
            rows = sorted(self._releases, key=lambda release: release.order)
            clashes = [
                {"version": row.version, "digest": row.digest, "ordinal": row.order}
                for row in rows
                if row.order == manifest.order
                or (row.agent == manifest.agent and (row.version == manifest.version or row.digest == digest))
                or (row.agent == manifest.agent and row.order > manifest.order)
            ]
            check_clashes(manifest, digest, clashes)
            if clashes:
                return next(row for row in rows if row.order == manifest.order)
            release = Release(
                agent=manifest.agent, version=manifest.version, digest=digest, order=manifest.order,
                base_version=manifest.base_version, job_id=UUID(manifest.job_id), uri=uri, mlflow_run_id=mlflow_run_id,
                manifest=manifest.as_dict(), created_at=self._clock(),
            )  # fmt: skip
            self._releases.append(release)
            self._note(manifest.agent, manifest.version, examples_of(manifest.rows))
            return release

    def record_examples(self, agent: str, version: str, examples: Examples) -> None:
        """See ``Ledger``."""
        if self.version(agent, version) is None:
            raise unknown_version(agent, version)
        with self._lock:
            self._note(agent, version, examples)

    def _note(self, agent: str, version: str, examples: Examples) -> None:
        for (task, role), ids in examples.items():
            self._examples.setdefault((agent, version, task, role), tuple(ids))

    def uses_of_example(self, example_id: UUID) -> tuple[ExampleUse, ...]:
        """See ``Ledger``."""
        found = [key for key, ids in self._examples.items() if example_id in ids]
        uses = [(self._dated(agent, version), task, role) for agent, version, task, role in found]
        return tuple(
            ExampleUse(
                agent=release.agent, version=release.version, task=task, role=role, example_id=example_id,
                released_at=release.created_at,
            )
            for release, task, role in sorted(uses, key=lambda use: (use[0].order, use[1], use[2].value))
        )  # fmt: skip

    def examples_of_version(self, agent: str, version: str) -> tuple[ExampleUse, ...]:
        """See ``Ledger``."""
        mine = sorted((key for key in self._examples if key[:2] == (agent, version)), key=lambda key: key[2:])
        return tuple(
            ExampleUse(
                agent=agent, version=version, task=key[2], role=key[3], example_id=identity,
                released_at=self._dated(agent, version).created_at,
            )
            for key in mine
            for identity in self._examples[key]
        )  # fmt: skip

    def _dated(self, agent: str, version: str) -> Release:
        return next(release for release in self._releases if (release.agent, release.version) == (agent, version))

    def version(self, agent: str, version: str) -> Release | None:
        """See ``Ledger``."""
        return next((release for release in self.versions(agent) if release.version == version), None)

    def version_of_job(self, job_id: UUID | str) -> Release | None:
        """See ``Ledger``."""
        found = [release for release in self._releases if str(release.job_id) == str(job_id)]
        return max(found, key=lambda release: release.order, default=None)

    def versions(self, agent: str) -> tuple[Release, ...]:
        """See ``Ledger``."""
        own = [release for release in self._releases if release.agent == agent]
        return tuple(sorted(own, key=lambda release: -release.order))

    def agents(self) -> tuple[str, ...]:
        """See ``Ledger``."""
        return tuple(sorted({release.agent for release in self._releases}))

    def newest_unserved(self, agent: str) -> Release | None:
        """See ``Ledger``; without rollouts, a version has met traffic once it was champion or candidate."""
        newest = next(iter(self.versions(agent)), None)
        met = {move.version for move in self._moves if move.agent == agent}
        return None if newest is None or newest.version in met else newest

    def champion(self, agent: str) -> str | None:
        """See ``Ledger``."""
        return self._alias(agent, Alias.CHAMPION)

    def ever_served(self, agent: str) -> bool:
        """See ``Ledger``."""
        mine = [move for move in self._moves if (move.agent, move.alias) == (agent, Alias.CHAMPION)]
        return any(move.version is not None for move in mine)

    def candidate(self, agent: str) -> str | None:
        """See ``Ledger``."""
        return self._alias(agent, Alias.CANDIDATE)

    def _alias(self, agent: str, alias: Alias) -> str | None:
        last = next((move for move in reversed(self._moves) if (move.agent, move.alias) == (agent, alias)), None)
        return None if last is None else last.version

    def move_alias(
        self,
        agent: str,
        alias: Alias | str,
        version: str | None,
        *,
        actor: str,
        reason: str,
        job_id: UUID | None = None,
    ) -> bool:
        """See ``Ledger``."""
        name = Alias(alias)
        if version is not None and self.version(agent, version) is None:
            raise unknown_version(agent, version)
        with self._lock:
            if self._alias(agent, name) == version:
                return False
            self._moves.append(
                AliasMove(
                    agent=agent, alias=name, version=version, actor=actor, reason=reason, job_id=job_id,
                    moved_at=self._clock(),
                )
            )  # fmt: skip
        return True

    def moves(self, agent: str, limit: int = 100) -> tuple[AliasMove, ...]:
        """See ``Ledger``."""
        return tuple(move for move in reversed(self._moves) if move.agent == agent)[:limit]

    def first_move(self, agent: str, *, reason: str, since: datetime) -> AliasMove | None:
        """See ``Ledger``."""
        made = [move for move in self._moves if (move.agent, move.reason) == (agent, reason)]
        return next((move for move in made if move.moved_at >= aware(since)), None)

    def promoted_since(self, time: datetime) -> frozenset[str]:
        """See ``Ledger``."""
        moment = aware(time)
        return frozenset(
            move.agent
            for move in self._moves
            if move.alias is Alias.CHAMPION and move.version is not None and move.moved_at > moment
        )

    def served_at(self, agent: str, time: datetime) -> AliasMove | None:
        """See ``Ledger``."""
        moment = aware(time)
        for move in reversed(self._moves):
            if (move.agent, move.alias) == (agent, Alias.CHAMPION) and move.moved_at <= moment:
                return move if move.version is not None else None
        return None

    def add_gate_report(
        self, *, agent: str, job_id: UUID, attempt: int, content_digest: str, action: str, report: Mapping[str, Any]
    ) -> dict[str, Any]:
        """See ``Ledger``."""
        with self._lock:
            stored = next((row for row in self._reports if (row.job_id, row.attempt) == (job_id, attempt)), None)
            if stored is None:
                stored = StoredReport(
                    agent=agent, job_id=job_id, attempt=attempt, content_digest=content_digest, action=str(action),
                    report=dict(report), created_at=self._clock(),
                )  # fmt: skip
                self._reports.append(stored)
        return same_verdict(stored, content_digest, str(action))

    def gate_report(self, job_id: UUID) -> StoredReport | None:
        """See ``Ledger``."""
        found = [row for row in self._reports if row.job_id == job_id]
        return max(found, key=lambda row: row.attempt, default=None)

    def gate_reports(self, agent: str, limit: int = 20) -> tuple[StoredReport, ...]:
        """See ``Ledger``."""
        return tuple(row for row in reversed(self._reports) if row.agent == agent)[:limit]

    def judgements(self, job_id: UUID) -> tuple[Judgement, ...]:
        """See ``Ledger``."""
        found = sorted((row for row in self._reports if row.job_id == job_id), key=lambda row: row.attempt)
        return tuple(
            Judgement(
                attempt=row.attempt, content_digest=row.content_digest, action=row.action, created_at=row.created_at
            )
            for row in found
        )  # fmt: skip

    def ask(
        self, *, agent: str, job_id: UUID, attempt: int, content_digest: str, version: str, requested_by: str,
        body_digest: str,
    ) -> Question:  # fmt: skip
        """See ``Ledger``."""
        with self._lock:
            stored = next((row for row in self._questions if (row.job_id, row.attempt) == (job_id, attempt)), None)
            if stored is None:
                stored = Question(
                    agent=agent, job_id=job_id, attempt=attempt, content_digest=content_digest, version=version,
                    requested_by=requested_by, body_digest=body_digest, asked_at=self._clock(),
                )  # fmt: skip
                self._questions.append(stored)
        return same_question(stored, content_digest)

    def questions(
        self, *, agent: str | None = None, job_id: UUID | None = None, limit: int = 50
    ) -> tuple[Question, ...]:
        """See ``Ledger``."""
        found = [row for row in self._questions if agent in (None, row.agent) and job_id in (None, row.job_id)]
        return tuple(reversed(found))[:limit]

    def add_approval(
        self, *, agent: str, job_id: UUID, content_digest: str, decision: Decision | str, actor: str, comment: str = "",
        hours: float = 72.0, attempt: int | None = None, version: str = "", requested_by: str = "", void: str = "",
    ) -> Approval:  # fmt: skip
        """See ``Ledger``."""
        asked, word, who = asking(self.judgements(job_id), content_digest, attempt), Decision(decision), named(actor)
        with self._lock:
            now = self._clock()
            row = Approval(
                id=len(self._approvals) + 1, agent=agent, job_id=job_id, attempt=asked.attempt,
                content_digest=content_digest, version=version, decision=word, actor=who, requested_by=requested_by,
                void=void, comment=comment, expires_at=now + timedelta(hours=lifetime(hours)), created_at=now,
            )  # fmt: skip
            self._approvals.append(row)
        return row

    def decisions(
        self, *, agent: str | None = None, job_id: UUID | None = None, limit: int = 200
    ) -> tuple[Approval, ...]:
        """See ``Ledger``."""
        found = [row for row in self._approvals if agent in (None, row.agent) and job_id in (None, row.job_id)]
        return tuple(reversed(found))[:limit]

    def now(self) -> datetime:
        """See ``Ledger``."""
        return self._clock()

    def add_validation(
        self, *, agent: str, job_id: UUID, attempt: int, task: str, success: bool, report: Mapping[str, Any]
    ) -> None:
        """See ``Ledger``."""
        with self._lock:
            known = {(row.job_id, row.attempt, row.task) for row in self._validations}
            if (job_id, attempt, task) not in known:
                self._validations.append(
                    Validation(
                        agent=agent, job_id=job_id, attempt=attempt, task=task, success=success, report=dict(report),
                        created_at=self._clock(),
                    )
                )  # fmt: skip
        same_outcome(self.validations(job_id), attempt, task, success)

    def validations(self, job_id: UUID) -> tuple[Validation, ...]:
        """See ``Ledger``."""
        found = [row for row in self._validations if row.job_id == job_id]
        return tuple(sorted(found, key=lambda row: (row.attempt, row.task)))

    def recent_validations(self, agent: str, limit: int = 50) -> tuple[Validation, ...]:
        """See ``Ledger``."""
        return tuple(row for row in reversed(self._validations) if row.agent == agent)[:limit]
