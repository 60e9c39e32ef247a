"""Where rows came from, and what waits for its source's share, on PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from perennial.domain.origin import HELD_WORDS, REFUSED, Origin
from perennial.domain.words import Source
from perennial.ingest.postgres_jobs import PostgresJobs
from perennial.ingest.results import HeldRows
from perennial.storage.queries import load


class PostgresOrigins(PostgresJobs):
    """What the screening of a batch asks; part of ``PostgresBuffer``."""

    _origins = load("perennial.ingest", "origins.sql")

    def origins(self, ids: Sequence[UUID]) -> dict[UUID, Origin]:
        """The origin of each row that is there, by its id; one indexed query."""
        with self._database.connection() as connection:
            rows = connection.execute(self._origins["origins"], {"ids": list(ids)}).fetchall()
        return {row.pop("example_id"): Origin(**{**row, "kind": Source(row["kind"])}) for row in rows}

    def recall_capped(self, agent: str, job_id: UUID, attempt: int, *, share: float, most: float) -> int:
        """Let rows held as ``source_cap`` join the claim where it has room for them; returns how many did.

        Per task and source until it has ``share`` of the claimed rows, of all sources together ``most`` of them, both between 0
        and 1; the oldest first. They call for no training of their own: only other rows do. StaleClaim when the attempt is no
        longer the job's. A repeat finds the room taken.
        """
        values = {"agent": agent, "job_id": job_id, "attempt": attempt, "share": share, "most": most}
        with self._fenced(job_id, attempt) as (connection, _job):
            return connection.execute(self._origins["recall"], values).rowcount

    def held(self, agent: str) -> list[HeldRows]:
        """What of an agent waits for a person, by task, reason and source."""
        with self._database.connection() as connection:
            values = {"agent": agent, "words": list(HELD_WORDS), "refused": REFUSED}
            return [HeldRows(**row) for row in connection.execute(self._origins["held"], values)]
