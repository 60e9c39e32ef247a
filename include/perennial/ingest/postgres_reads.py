"""What flows and people read from the buffer on PostgreSQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from perennial.domain.example import TrainingRow
from perennial.domain.words import State
from perennial.ingest.postgres_jobs import training_row
from perennial.ingest.results import KnownRow, Performance, StoredCorrection, StoredExample
from perennial.storage.database import Database
from perennial.storage.queries import load

REPLAY_POOL = 20_000  # the replay is drawn from at most so many of the newest trained rows


class PostgresReads:
    """Slices, counts and history; part of ``PostgresBuffer``."""

    _database: Database
    _reads = load("perennial.ingest", "reads.sql")

    def holdout(self, agent: str, task: str, as_of: datetime, limit: int) -> tuple[TrainingRow, ...]:
        """The labelled rows kept from training and admitted by ``as_of``, in the order of their input digests."""
        return self._rows("holdout", {"agent": agent, "task": task, "as_of": as_of, "limit": limit})

    def regression(
        self, agent: str, task: str, as_of: datetime | None = None, limit: int = 1000
    ) -> tuple[TrainingRow, ...]:
        """Trained corrections of priority 2 and above that still hold: every later candidate must answer them."""
        return self._rows("regression", {"agent": agent, "task": task, "as_of": as_of, "limit": limit})

    def replay_candidates(self, agent: str, task: str, limit: int, seed: int) -> list[TrainingRow]:
        """Trained rows that no correction overtook, in an order drawn by ``seed``: one seed gives one order."""
        values = {"agent": agent, "task": task, "limit": limit, "seed": seed, "pool": max(limit, REPLAY_POOL)}
        return list(self._rows("replay", values))

    def recent_trained(self, agent: str, task: str, limit: int) -> tuple[TrainingRow, ...]:
        """The newest trained rows that still hold."""
        return self._rows("recent_trained", {"agent": agent, "task": task, "limit": limit})

    def counts(self, agent: str) -> dict[tuple[str, str], int]:
        """Rows by task and state; ready rows of the holdout stand under ``holdout``. Reads all rows of the agent."""
        with self._database.connection() as connection:
            rows = connection.execute(self._reads["counts"], {"agent": agent}).fetchall()
        return {(row["task"], row["state"]): int(row["n"]) for row in rows}

    def example(self, example_id: UUID) -> StoredExample | None:
        """One row, or None when it is not there."""
        with self._database.connection() as connection:
            row = connection.execute(self._reads["example"], {"example_id": example_id}).fetchone()
        return StoredExample(**{**row, "state": State(row["state"])}) if row else None

    def rows_by_id(self, ids: Sequence[UUID]) -> dict[UUID, KnownRow]:
        """What is known of these ids, in whatever state they are; an id that is not there is left out."""
        with self._database.connection() as connection:
            rows = connection.execute(self._reads["rows_by_id"], {"ids": list(ids)}).fetchall()
        return {
            row["example_id"]: KnownRow(
                state=State(row["state"]), source=row["source"], priority=row["priority"],
                row=None if row["input_text"] is None or row["state"] == State.PURGED else training_row(row),
            )
            for row in rows
        }  # fmt: skip

    def waiting(self) -> dict[str, int]:
        """Rows that wait for a training, for every active agent."""
        with self._database.connection() as connection:
            return {row["agent"]: row["waiting"] for row in connection.execute(self._reads["waiting"])}

    def quiet(self, seconds: float) -> list[str]:
        """Active agents that had rows before and got none within ``seconds``."""
        with self._database.connection() as connection:
            return [row["agent"] for row in connection.execute(self._reads["quiet"], {"seconds": seconds})]

    def running(self) -> list[str]:
        """Agents that train now."""
        with self._database.connection() as connection:
            return [row["agent"] for row in connection.execute(self._reads["running"])]

    def corrections(self, agent: str, limit: int = 1000) -> tuple[StoredCorrection, ...]:
        """The agent's corrections with what became of them, newest first."""
        with self._database.connection() as connection:
            rows = connection.execute(self._reads["corrections"], {"agent": agent, "limit": limit}).fetchall()
        return tuple(
            StoredCorrection(
                row=training_row(row), state=State(row["state"]), learned=row["learned"], version=row["model_version"],
                refusals=row["refusals"], reason=row["reason"],
            )
            for row in rows
        )  # fmt: skip

    def corrections_by_tag(self, agent: str) -> dict[str, dict[str, int]]:
        """Corrections by their tag (manual, qa, ...) and state."""
        found: dict[str, dict[str, int]] = {}
        with self._database.connection() as connection:
            for row in connection.execute(self._reads["corrections_by_tag"], {"agent": agent}):
                found.setdefault(row["tag"], {})[row["state"]] = int(row["n"])
        return found

    def record_performance(
        self, *, agent: str, model_name: str, before: float | None, after: float | None, examples: int, rollback: bool,
        job_id: UUID | None = None, version: str | None = None, detail: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        """Append one update to the history, also a refused or rolled back one; once per job, version and verdict."""
        from psycopg.types.json import Jsonb

        values = {
            "agent": agent, "model_name": model_name, "before": before, "after": after, "examples": examples,
            "rollback": rollback, "job_id": job_id, "version": version, "detail": Jsonb(dict(detail or {})),
        }  # fmt: skip
        with self._database.connection() as connection:
            connection.execute(self._reads["record_performance"], values)

    def performance(self, agent: str | None = None, last: int = 5) -> list[Performance]:
        """The last updates, oldest first, of one agent or of all."""
        with self._database.connection() as connection:
            rows = connection.execute(self._reads["performance"], {"agent": agent, "last": last}).fetchall()
        return [Performance(**row) for row in reversed(rows)]

    def performance_size(self) -> int:
        """How many updates the history holds."""
        with self._database.connection() as connection:
            row = connection.execute(self._reads["performance_size"]).fetchone()
        return int(row["n"]) if row else 0

    def recent_accuracy(self, agent: str, window: int) -> float | None:
        """Share of right answers among the last ``window`` outcomes from production; None when there is none."""
        with self._database.connection() as connection:
            row = connection.execute(self._reads["recent_accuracy"], {"agent": agent, "window": window}).fetchone()
        return float(row["accuracy"]) if row and row["accuracy"] is not None else None

    def _rows(self, statement: str, values: Mapping[str, Any]) -> tuple[TrainingRow, ...]:
        with self._database.connection() as connection:
            return tuple(training_row(row) for row in connection.execute(self._reads[statement], values))
