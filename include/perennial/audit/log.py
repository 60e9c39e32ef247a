"""The audit log: one row per decision."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

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

        values = {**_checked(actor, action), "agent": agent, "subject": subject, "detail": Jsonb(dict(detail or {}))}
        with self._database.connection() as connection:
            connection.execute(self._sql["append"], values)

    def entries(self, agent: str | None = None, limit: int = 100) -> tuple[Entry, ...]:
        """See ``AuditLog``."""
        with self._database.connection() as connection:
            rows = connection.execute(self._sql["entries"], {"agent": agent, "limit": limit}).fetchall()
        return tuple(Entry(**row) for row in rows)


class MemoryAuditLog:
    """The audit log in memory, for tests and trials without a database."""

    def __init__(self) -> None:
        self._entries: list[Entry] = []
        self._ids = itertools.count(1)

    def append(
        self, *, actor: str, action: str, agent: str = "", subject: str = "", detail: Mapping[str, Any] | None = None
    ) -> None:
        """See ``AuditLog``."""
        who = _checked(actor, action)
        self._entries.append(
            Entry(
                id=next(self._ids), at=datetime.now(UTC), agent=agent, subject=subject, detail=dict(detail or {}), **who
            )
        )

    def entries(self, agent: str | None = None, limit: int = 100) -> tuple[Entry, ...]:
        """See ``AuditLog``."""
        return tuple(entry for entry in reversed(self._entries) if agent is None or entry.agent == agent)[:limit]


def _checked(actor: str, action: str) -> dict[str, str]:
    if not actor.strip() or not action.strip():
        raise ValueError("an audit entry names who did what; actor and action must not be empty")
    return {"actor": actor, "action": action}
