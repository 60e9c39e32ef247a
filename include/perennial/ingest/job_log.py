"""Reads jobs for people and reports, and keeps what each job cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

from perennial.storage.database import Database
from perennial.storage.queries import load


@dataclass(frozen=True, kw_only=True, slots=True)
class JobEntry:
    """One job as people ask about it. ``cost`` holds seconds by step."""

    job_id: UUID
    run_id: str
    status: str
    reason: str
    example_count: int
    version: str | None
    note: str
    cost: dict[str, Any]
    finished: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """Where an agent's trainings stand. ``stuck_job`` is one whose lease ran out ``stuck_seconds`` ago."""

    agent: str
    last_status: str | None
    last_note: str | None
    last_job: UUID | None
    stuck_job: UUID | None
    stuck_seconds: float | None


class Jobs(Protocol):
    """What flows read of jobs and write about their cost; ``JobLog`` documents each method."""

    def recent(self, agent: str, seconds: float) -> list[JobEntry]: ...
    def of_version(self, agent: str, version: str) -> JobEntry | None: ...
    def add_cost(self, job_id: UUID, attempt: int, cost: Mapping[str, float]) -> None: ...
    def training_seconds(self, agent: str) -> tuple[float, float]: ...
    def standings(self) -> list[Standing]: ...


class JobLog:
    """Over the app role. Raises StoreUnavailable when PostgreSQL is away."""

    _sql = load("perennial.ingest", "job_log.sql")

    def __init__(self, database: Database) -> None:
        self._database = database

    def recent(self, agent: str, seconds: float) -> list[JobEntry]:
        """Jobs of the last ``seconds``, newest first."""
        with self._database.connection() as connection:
            rows = connection.execute(self._sql["recent"], {"agent": agent, "seconds": seconds}).fetchall()
        return [JobEntry(**row) for row in rows]

    def of_version(self, agent: str, version: str) -> JobEntry | None:
        """The job that made a version."""
        with self._database.connection() as connection:
            row = connection.execute(self._sql["of_version"], {"agent": agent, "version": version}).fetchone()
        return JobEntry(**row) if row else None

    def add_cost(self, job_id: UUID, attempt: int, cost: Mapping[str, float]) -> None:
        """Add what one step cost, in seconds by name; a stale attempt changes nothing."""
        from psycopg.types.json import Jsonb

        with self._database.connection() as connection:
            connection.execute(self._sql["add_cost"], {"job_id": job_id, "attempt": attempt, "cost": Jsonb(dict(cost))})

    def training_seconds(self, agent: str) -> tuple[float, float]:
        """Seconds that the agent's trainings took within the last 24 hours and the last 7 days, by when each began."""
        with self._database.connection() as connection:
            row = connection.execute(self._sql["training_seconds"], {"agent": agent}).fetchone()
        assert row is not None  # an aggregate
        return float(row["day"]), float(row["week"])

    def standings(self) -> list[Standing]:
        """How each active agent's newest training ended, and which training is stuck."""
        with self._database.connection() as connection:
            rows = connection.execute(self._sql["standings"]).fetchall()
        return [Standing(**row) for row in rows]


class Sink(Protocol):
    """Takes announcements. Taking one twice must do no harm: its ``batch_id`` says which it is."""

    def publish(self, topic: str, batch_id: UUID, payload: Mapping[str, Any]) -> None:
        """Return once it is durable there; raise otherwise."""
        ...


def relay_outbox(database: Database, sinks: tuple[Sink, ...], *, limit: int = 500) -> int:
    """Hand waiting announcements to every sink, in order, then mark them; returns how many.

    At least once: a kill between publishing and marking repeats them.
    """
    sql = load("perennial.ingest", "job_log.sql")
    with database.connection() as connection:
        rows = connection.execute(sql["relay_batch"], {"limit": limit}).fetchall()
        for row in rows:
            for sink in sinks:
                sink.publish(row["topic"], row["batch_id"], row["payload"])
        if rows:
            connection.execute(sql["relayed"], {"ids": [row["id"] for row in rows]})
    return len(rows)
