"""Where overrides are kept, append-only, with the database's clock to say which of them hold."""

from __future__ import annotations

from typing import Any, Protocol

from perennial.domain.words import JSON
from perennial.errors import FleetError
from perennial.fleet.overrides import LONGEST_SECONDS, Override
from perennial.storage.database import Database
from perennial.storage.queries import load


class OverrideStore(Protocol):
    """Overrides of agents' settings. Nothing is ever changed: a newer row takes an older one's place, or ends it."""

    def set(self, agent: str, key: str, value: JSON, *, seconds: float, actor: str, reason: str) -> Override:
        """Let a setting hold for ``seconds`` from now; an earlier one of the same key is over. FleetError without a name or a reason,
        or for no time or more than 30 days."""
        ...

    def unset(self, agent: str, key: str, *, actor: str, reason: str) -> bool:
        """End an override before its time; False when none holds."""
        ...

    def active(self, agent: str | None = None) -> tuple[Override, ...]:
        """What holds now, in order of agent and key; of one agent, or of all."""
        ...

    def history(self, agent: str, limit: int = 50) -> tuple[dict[str, Any], ...]:
        """Everything that was set and unset, newest first; ``value`` is None where an override was ended."""
        ...


class PostgresOverrides:
    """``OverrideStore`` over the app role. Raises StoreUnavailable when PostgreSQL is away."""

    _sql = load("perennial.fleet", "overrides.sql")

    def __init__(self, database: Database) -> None:
        self._database = database

    def set(self, agent: str, key: str, value: JSON, *, seconds: float, actor: str, reason: str) -> Override:
        """See ``OverrideStore``."""
        from psycopg.types.json import Jsonb

        values = {**checked(actor, reason, seconds), "agent": agent, "key": key, "value": Jsonb(value)}
        with self._database.connection() as connection:
            row = connection.execute(self._sql["set"], values).fetchone()
        assert row is not None  # INSERT ... RETURNING
        return Override(**row)

    def unset(self, agent: str, key: str, *, actor: str, reason: str) -> bool:
        """See ``OverrideStore``."""
        values = {**checked(actor, reason, 1.0), "agent": agent, "key": key}
        with self._database.connection() as connection:
            return connection.execute(self._sql["unset"], values).rowcount > 0

    def active(self, agent: str | None = None) -> tuple[Override, ...]:
        """See ``OverrideStore``."""
        with self._database.connection() as connection:
            rows = connection.execute(self._sql["active"], {"agent": agent}).fetchall()
        return tuple(Override(**row) for row in rows)

    def history(self, agent: str, limit: int = 50) -> tuple[dict[str, Any], ...]:
        """See ``OverrideStore``."""
        with self._database.connection() as connection:
            return tuple(connection.execute(self._sql["history"], {"agent": agent, "limit": limit}).fetchall())


def checked(actor: str, reason: str, seconds: float) -> dict[str, Any]:
    if not actor.strip() or not reason.strip():
        raise FleetError("an override needs the name of who decides, and a reason")
    if not 0 < seconds <= LONGEST_SECONDS:
        raise FleetError(
            "an override holds for more than nothing and at most 30 days; what holds longer belongs into the file"
        )
    return {"actor": actor, "reason": reason, "seconds": seconds}
