"""The audit log: one row per decision, chained by hash in batches."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from perennial.audit.chain import MOST, Seal
from perennial.audit.reading import open_chain, seal_of
from perennial.audit.verification import Chain
from perennial.storage.database import Database
from perennial.storage.queries import load


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One decision.

    ``subject`` is what it was about (a job, a version), ``detail`` plain JSON without any text of an example.
    """

    id: int
    at: datetime
    actor: str
    action: str
    agent: str
    subject: str
    detail: Mapping[str, Any]


class AuditLog(Protocol):
    """Where decisions are written down. Runs in every process; never blocks for long."""

    def append(
        self, *, actor: str, action: str, agent: str = "", subject: str = "", detail: Mapping[str, Any] | None = None
    ) -> None:
        """Write one decision; ValueError when nobody is named as its author."""
        ...

    def entries(self, agent: str | None = None, limit: int = 100) -> tuple[Entry, ...]:
        """The last decisions, newest first; of one agent, or of all."""
        ...

    def has(
        self, *, agent: str, subject: str, actions: Collection[str], actor: str | None = None,
        detail: Mapping[str, Any] | None = None,
    ) -> bool:  # fmt: skip
        """Whether one of these actions is written about the subject, by whomever or by ``actor``; however long ago.

        ``detail``: what the entry's own must contain; a list there contains each of the values that are given in a list.
        """
        ...

    def seal(self, most: int = MOST) -> Seal | None:
        """Chain up to ``most`` waiting rows as one batch; None when none waits or somebody else is at it. May be killed anywhere."""
        ...

    def seals(self, after: int, limit: int = 1000) -> tuple[Seal, ...]:
        """The chain's batches after this one, in order."""
        ...

    def chain(self) -> AbstractContextManager[Chain]:
        """Everything at one moment, streamed, for ``verification.verify``."""
        ...


class PostgresAuditLog:
    """The audit log in PostgreSQL, where triggers and privileges refuse every change of a row."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._sql = load("perennial.audit")

    def append(
        self, *, actor: str, action: str, agent: str = "", subject: str = "", detail: Mapping[str, Any] | None = None
    ) -> None:
        """See ``AuditLog``."""
        from psycopg.types.json import Jsonb

        values = {**checked(actor, action), "agent": agent, "subject": subject, "detail": Jsonb(dict(detail or {}))}
        with self._database.connection() as connection:
            connection.execute(self._sql["append"], values)

    def entries(self, agent: str | None = None, limit: int = 100) -> tuple[Entry, ...]:
        """See ``AuditLog``."""
        with self._database.connection() as connection:
            rows = connection.execute(self._sql["entries"], {"agent": agent, "limit": limit}).fetchall()
        return tuple(Entry(**row) for row in rows)

    def has(
        self, *, agent: str, subject: str, actions: Collection[str], actor: str | None = None,
        detail: Mapping[str, Any] | None = None,
    ) -> bool:  # fmt: skip
        """See ``AuditLog``."""
        from psycopg.types.json import Jsonb

        values = {
            "agent": agent, "subject": subject, "actions": sorted(actions), "actor": actor,
            "detail": Jsonb(dict(detail or {})),
        }  # fmt: skip
        with self._database.connection() as connection:
            return connection.execute(self._sql["has"], values).fetchone() is not None

    def seal(self, most: int = MOST) -> Seal | None:
        """See ``AuditLog``."""
        with self._database.connection() as connection:
            row = connection.execute(self._sql["seal"], {"most": most}).fetchone()
        return seal_of(row) if row is not None else None

    def seals(self, after: int, limit: int = 1000) -> tuple[Seal, ...]:
        """See ``AuditLog``."""
        with self._database.connection() as connection:
            rows = connection.execute(self._sql["seals"], {"after": after, "limit": limit}).fetchall()
        return tuple(seal_of(row) for row in rows)

    def chain(self) -> AbstractContextManager[Chain]:
        """See ``AuditLog``; StoreUnavailable when PostgreSQL is away."""
        return open_chain(self._database)


def checked(actor: str, action: str) -> dict[str, str]:
    if not actor.strip() or not action.strip():
        raise ValueError("an audit entry names who did what; actor and action must not be empty")
    return {"actor": actor, "action": action}
