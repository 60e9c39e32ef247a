"""What retention asks of the database and writes there: the protocol, and PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol
from uuid import UUID

from perennial.errors import NotConfigured, RegistryError
from perennial.storage.database import Database
from perennial.storage.queries import load

BATCH = 10_000  # rows of one transaction: no lock lasts longer than it takes to remove these
NEWEST = (
    5000  # answers and outcomes of a serving version that stay whatever their age: what one judgement reads at most
)


class Rows(StrEnum):
    """The kinds of rows that grow with traffic, and that age alone decides about."""

    PREDICTIONS = "predictions"
    OUTCOMES = "outcomes"
    RECENT_INPUTS = "recent_inputs"
    GATEWAYS = "gateways"
    OUTBOX = "outbox"
    EMBEDDINGS = "embeddings"
    SCANNED_TEXTS = "scanned_texts"  # keyed digests of texts without personal data
    REDACTION_TASKS = "redaction_tasks"  # open ones: their words go, the stand-ins stay
    REJECTED = "rejected"
    LEFTOVERS = "leftovers"  # superseded and evicted examples: their texts go, the row stays as ``purged``
    TRAINED = "trained"  # as leftovers; only where a deployment asks for it


# These touch originals, or what the application's role must not read: the admit role does it.
WITH_ORIGINALS = frozenset({Rows.REJECTED, Rows.LEFTOVERS, Rows.TRAINED})


@dataclass(frozen=True, kw_only=True, slots=True)
class Left:
    """A version whose files are there: its bytes' digest, the version that it was trained from, and the encoders that it names."""

    version: str
    digest: str
    base_version: str | None
    encoders: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Removal:
    """A version whose files retention took; ``complete`` once the last of them was gone. Its record stays."""

    agent: str
    version: str
    digest: str
    actor: str
    reason: str
    at: datetime
    complete: bool

    def told(self) -> str:
        """One sentence for whoever asks for these files."""
        return (
            f"the files of {self.agent} {self.version} were removed by retention on {self.at:%Y-%m-%d %H:%M} UTC "
            f"({self.reason}); its record, gate report and history stay"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Hold:
    """A version that a person keeps, whatever its age."""

    agent: str
    version: str
    actor: str
    reason: str
    at: datetime


class RetentionStore(Protocol):
    """Facts that decide what may go, and the record of what went. Every verb may be repeated."""

    def in_play(self, agent: str) -> Mapping[str, str]:
        """Version -> why something may open its files at any moment: serving, in rollout, loaded, held by a person."""
        ...

    def left(self, agent: str) -> tuple[Left, ...]:
        """Versions whose removal has not begun, newest first; as many as the rules keep, and those of a day."""
        ...

    def hold(self, agent: str, version: str, *, held: bool, actor: str, reason: str) -> bool:
        """Keep a version until further notice, or let it go again; False when it stands so already.

        Raises RegistryError when there is no such version, or its files are gone.
        """
        ...

    def holds(self, agent: str) -> tuple[Hold, ...]:
        """Versions that people keep."""
        ...

    def begin_removal(self, agent: str, version: str, *, actor: str, reason: str) -> bool:
        """Mark a version's files as going, unless it is in play now; nobody can serve it again afterwards.

        True also when it is marked already: a repeat after a kill goes on.
        """
        ...

    def end_removal(self, agent: str, version: str) -> None:
        """Say that the last of its files is gone."""
        ...

    def removals(self, agent: str) -> tuple[Removal, ...]:
        """Versions whose files went, oldest first."""
        ...

    def unfinished(self, agent: str) -> tuple[Removal, ...]:
        """Those of them whose last file was not seen to go: a killed pass left them to the next."""
        ...

    def removal(self, agent: str, version: str) -> Removal | None:
        """When and why a version's files went; None while they are there."""
        ...

    def finished_jobs(self, ids: Iterable[UUID], before: datetime) -> Mapping[UUID, bool]:
        """For each known job whether it ended before that moment; unknown ids are left out."""
        ...

    def count_old(self, rows: Rows, before: datetime) -> int:
        """How many rows ``remove_old`` would take. NotConfigured where it needs the admit role and there is none."""
        ...

    def remove_old(self, rows: Rows, before: datetime, limit: int = BATCH) -> int:
        """Take at most ``limit`` of them in one short transaction; 0 when none is left."""
        ...


class PostgresRetention:
    """``RetentionStore`` over the app role; ``admit`` is there only where texts may be purged."""

    def __init__(self, database: Database, admit: Database | None) -> None:
        self._database, self._admit = database, admit
        self._sql = load("perennial.retention")

    def in_play(self, agent: str) -> Mapping[str, str]:
        """See ``RetentionStore.in_play``."""
        return {row["version"]: row["why"] for row in self._all("in_play", {"agent": agent})}

    def left(self, agent: str) -> tuple[Left, ...]:
        """See ``RetentionStore.left``."""
        return tuple(
            Left(**{**row, "encoders": tuple(sorted(set(row["encoders"].values())))})
            for row in self._all("left", {"agent": agent})
        )

    def hold(self, agent: str, version: str, *, held: bool, actor: str, reason: str) -> bool:
        """See ``RetentionStore.hold``."""
        values = {"agent": agent, "version": version, "held": held, "actor": actor, "reason": reason}
        with self._database.connection() as connection:
            connection.execute(self._sql["lock_agent"], values)
            check_holdable(
                agent, version, known=connection.execute(self._sql["known"], values).fetchone() is not None,
                gone=_removal(connection.execute(self._sql["removal"], values).fetchone()),
            )  # fmt: skip
            return connection.execute(self._sql["hold"], values).rowcount > 0

    def holds(self, agent: str) -> tuple[Hold, ...]:
        """See ``RetentionStore.holds``."""
        return tuple(Hold(**row) for row in self._all("holds", {"agent": agent}))

    def begin_removal(self, agent: str, version: str, *, actor: str, reason: str) -> bool:
        """See ``RetentionStore.begin_removal``."""
        values = {"agent": agent, "version": version, "actor": actor, "reason": reason}
        with self._database.connection() as connection:
            connection.execute(self._sql["lock_serving"], values)
            connection.execute(self._sql["lock_agent"], values)
            connection.execute(self._sql["begin_removal"], values)
            return connection.execute(self._sql["removal"], values).fetchone() is not None

    def end_removal(self, agent: str, version: str) -> None:
        """See ``RetentionStore.end_removal``."""
        with self._database.connection() as connection:
            connection.execute(self._sql["end_removal"], {"agent": agent, "version": version})

    def removals(self, agent: str) -> tuple[Removal, ...]:
        """See ``RetentionStore.removals``."""
        return tuple(Removal(**row) for row in self._all("removals", {"agent": agent}))

    def unfinished(self, agent: str) -> tuple[Removal, ...]:
        """See ``RetentionStore.unfinished``."""
        return tuple(Removal(**row) for row in self._all("unfinished", {"agent": agent}))

    def removal(self, agent: str, version: str) -> Removal | None:
        """See ``RetentionStore.removal``."""
        with self._database.connection() as connection:
            return _removal(connection.execute(self._sql["removal"], {"agent": agent, "version": version}).fetchone())

    def finished_jobs(self, ids: Iterable[UUID], before: datetime) -> Mapping[UUID, bool]:
        """See ``RetentionStore.finished_jobs``."""
        rows = self._all("finished_jobs", {"ids": list(ids), "before": before})
        return {row["job_id"]: row["finished"] for row in rows}

    def count_old(self, rows: Rows, before: datetime) -> int:
        """See ``RetentionStore.count_old``."""
        with self._of(rows).connection() as connection:
            found = connection.execute(
                f"SELECT count(*) AS number FROM ({self._sql[f'old_{rows}']}) AS old",
                {"before": before, "newest": NEWEST},
            ).fetchone()
        assert found is not None
        return int(found["number"])

    def remove_old(self, rows: Rows, before: datetime, limit: int = BATCH) -> int:
        """See ``RetentionStore.remove_old``."""
        statement = self._sql[f"remove_{rows}"].replace("{old}", self._sql[f"old_{rows}"])
        with self._of(rows).connection() as connection:
            done = connection.execute(statement, {"before": before, "limit": limit, "newest": NEWEST})
            if done.description is None:
                return done.rowcount
            found = done.fetchone()
            return int(found["gone"]) if found else 0

    def _of(self, rows: Rows) -> Database:
        if rows not in WITH_ORIGINALS:
            return self._database
        if self._admit is None:
            raise NotConfigured(
                "PERENNIAL_ADMIT_DATABASE_URL", f"the texts of {rows} rows are the admit role's to remove; set it there"
            )
        return self._admit

    def _all(self, name: str, values: Mapping[str, Any]) -> list[dict[str, Any]]:
        with self._database.connection() as connection:
            return connection.execute(self._sql[name], values).fetchall()


def check_holdable(agent: str, version: str, *, known: bool, gone: Removal | None) -> None:
    """Raise RegistryError when there is nothing to hold."""
    if not known:
        raise RegistryError(f"{agent} has no version {version}; `perennial models {agent}` lists what there is")
    if gone is not None:
        raise RegistryError(f"{gone.told()}; there is nothing left to hold")


def _removal(row: Mapping[str, Any] | None) -> Removal | None:
    return None if row is None else Removal(**row)
