"""The way into the buffer on PostgreSQL: staging table, then one call of the insertion rules, in one transaction."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

from perennial.domain.example import Example
from perennial.domain.words import JSON, Source
from perennial.errors import StoreUnavailable, UnknownAgent
from perennial.ingest.digests import plain_digest, text_digest
from perennial.ingest.results import AddResult, Offset, Rejection, TaskLimits
from perennial.storage.database import Database
from perennial.storage.queries import load

if TYPE_CHECKING:
    from perennial.storage.database import Connection

logger = logging.getLogger(__name__)

_SMALL = 8  # up to here INSERTs beat the round trips of COPY
_TRIES = 5
T = TypeVar("T")


def is_correction(example: Example) -> bool:
    """Whether a row says what a known input should have been: sent as a correction, or urgent, and labelled."""
    return example.expected_output is not None and (example.source is Source.CORRECTION or example.priority >= 2)


def rounds_of(examples: Sequence[Example]) -> list[list[int]]:
    """Positions of the examples, split so that no round holds two corrections of one input; the order stays.

    The insertion rules look at what is stored, so the second correction of an input must find the first one there.
    """
    if len({example.example_id for example in examples}) == len(examples) and not any(map(is_correction, examples)):
        return [list(range(len(examples)))]  # nearly every bulk
    rounds: list[list[int]] = [[]]
    seen: dict[tuple[str, str, bytes], int] = {}
    ids: set[UUID] = set()
    for position, example in enumerate(examples):
        if example.example_id in ids:
            continue
        ids.add(example.example_id)
        turn = 0
        if is_correction(example):
            key = (example.agent, example.task, plain_digest(example.input_text))
            turn = seen[key] = seen.get(key, -1) + 1
        while len(rounds) <= turn:
            rounds.append([])
        rounds[turn].append(position)
    return rounds


def warn_of_eviction(count: int) -> None:
    """Say that a buffer overflowed; the counter ``evicted`` says it for good."""
    if count:
        logger.warning("%s rows of the least worth left a full buffer; raise max_buffer_size or train sooner", count)


class PostgresIntake:
    """Adds rows, moves offsets, keeps the fleet and the counters; part of ``PostgresBuffer``."""

    _database: Database
    _intake = load("perennial.ingest", "intake.sql")

    def add(self, example: Example) -> AddResult:
        """Store one example durably; returns after commit. Idempotent by ``example_id``.

        Raises UnknownAgent, or StoreUnavailable when nothing was acknowledged (safe to repeat).
        """
        return self.add_many((example,))

    def add_many(
        self, examples: Iterable[Example], *, offsets: Offset | None = None, rejected: Sequence[Rejection] = ()
    ) -> AddResult:
        """Store many examples in one transaction, in the order given; a few thousand per call is a good size.

        With ``offsets`` the reading position moves in the same transaction; when the source was already read up to it
        the whole call does nothing. ``rejected`` records are kept and counted with it.
        """
        batch = list(examples)
        if not batch and offsets is None and not rejected:
            return AddResult()
        result = self._retried(lambda connection: self._add(connection, batch, offsets, rejected))
        warn_of_eviction(result.evicted)
        return result

    def withdraw(self, ids: Collection[UUID], *, back: Collection[UUID] = ()) -> None:
        """Take rows back whose sender says now that they are wrong; ``back``: such rows wait again. Unknown ids are passed over.

        What was trained already is not replayed. Raises StoreUnavailable when nothing was done (safe to repeat).
        """

        def work(connection: Connection) -> None:
            connection.execute(self._intake["withdraw"], {"ids": list(ids)})
            connection.execute(self._intake["bring_back"], {"ids": list(back)})

        self._retried(work)

    def _retried(self, work: Callable[[Connection], T]) -> T:
        import psycopg

        for last in (False,) * (_TRIES - 1) + (True,):
            try:
                with self._database.connection() as connection:
                    return work(connection)
            except StoreUnavailable as error:
                # writers that lock the same rows in another order; PostgreSQL ends one of them, which simply goes again
                if last or not isinstance(error.__cause__, psycopg.errors.DeadlockDetected):
                    raise
                logger.info("two writers waited for each other; adding again")
        raise AssertionError("the last try returns or raises")

    def _add(
        self, connection: Connection, batch: list[Example], offsets: Offset | None, rejected: Sequence[Rejection]
    ) -> AddResult:
        if offsets is not None:
            moved = connection.execute(self._intake["advance_offset"], _offset(offsets)).fetchone()
            if moved is None:
                return AddResult(skipped=True)
        for record in rejected:
            connection.execute(self._intake["reject"], _rejection(record))
        if rejected:
            connection.execute(self._intake["count"], {"agent": "", "name": "rejected", "amount": len(rejected)})
        result = AddResult()
        ids: dict[int, UUID] = {}
        for positions in rounds_of(batch):
            if positions:
                taken, found = self._take_in(connection, batch, positions)
                ids |= found
                result = _sum(result, taken)
        repeated = len(batch) - result.added - result.duplicates
        if result.added == len(batch):
            stored = tuple(example.example_id for example in batch)
        else:
            first = {example.example_id: ids[position] for position, example in enumerate(batch) if position in ids}
            stored = tuple(first[example.example_id] for example in batch)
        return AddResult(
            added=result.added, duplicates=result.duplicates + repeated, quarantined=result.quarantined,
            evicted=result.evicted, ids=stored,
        )  # fmt: skip

    def _take_in(
        self, connection: Connection, batch: list[Example], positions: list[int]
    ) -> tuple[AddResult, dict[int, UUID]]:
        connection.execute(self._intake["open_intake"])
        with connection.cursor() as cursor:
            if len(positions) <= _SMALL:
                for position in positions:
                    cursor.execute(self._intake["add_one"], _as_parameters(position, batch[position]))
            else:
                with cursor.copy(self._intake["copy_rows"]) as copy:
                    copy.set_types(_TYPES)
                    for position in positions:
                        copy.write_row(_as_row(position, batch[position]))
                cursor.execute(self._intake["measure_intake"])
        row = connection.execute(self._intake["take_in"], {"announce": False}).fetchone()
        parts: list[dict[str, Any]] = row["outcome"] if row else []
        given, added = sum(part["given"] for part in parts), sum(part["added"] for part in parts)
        if given < len(positions):
            known = {part["agent"] for part in parts}
            stranger = next(batch[position].agent for position in positions if batch[position].agent not in known)
            raise UnknownAgent(stranger, sorted(self.fleet()))
        if added == given:
            ids = {position: batch[position].example_id for position in positions}
        else:
            stored = connection.execute(self._intake["stored_ids"]).fetchall()
            ids = {found["ordinal"]: found["example_id"] for found in stored}
            # somebody may say again what its sender took back
            connection.execute(self._intake["bring_back"], {"ids": list(ids.values())})
        return AddResult(
            added=added, duplicates=given - added, quarantined=sum(part["quarantined"] for part in parts),
            evicted=sum(part["evicted"] for part in parts),
        ), ids  # fmt: skip

    def offset(self, source: str, part: str) -> Offset | None:
        """How far a part of a source was read, or None when it never was."""
        with self._database.connection() as connection:
            row = connection.execute(self._intake["offset"], {"source": source, "part": part}).fetchone()
        return Offset(**row) if row else None

    def count(self, agent: str, name: str, amount: int = 1) -> None:
        """Add to a counter, such as ``rejected``."""
        with self._database.connection() as connection:
            connection.execute(self._intake["count"], {"agent": agent, "name": name, "amount": amount})

    def counters(self) -> dict[str, dict[str, int]]:
        """All counters by agent: duplicates, evicted, quarantined, rejected; "" stands for records of no agent."""
        found: dict[str, dict[str, int]] = {}
        with self._database.connection() as connection:
            for row in connection.execute(self._intake["counters"]):
                found.setdefault(row["agent"], {})[row["name"]] = row["value"]
        return found

    def fleet(self) -> dict[str, dict[str, TaskLimits]]:
        """The active agents with their tasks, by every name under which a task may be sent."""
        found: dict[str, dict[str, TaskLimits]] = {}
        with self._database.connection() as connection:
            for row in connection.execute(self._intake["fleet"]):
                labels = tuple(row["labels"]) if row["labels"] is not None else None
                found.setdefault(row["agent"], {})[row["name"]] = TaskLimits(
                    name=row["task"], kind=row["kind"], labels=labels, max_length=row["max_length"]
                )
        return found

    def sync_agents(self, records: Sequence[Mapping[str, Any]], *, keep: bool = False) -> None:
        """Write the fleet: agents and tasks as given; agents that are not among them become inactive unless ``keep``.

        Each record holds agent, record, file_digest, update_threshold, max_buffer_size, holdout_share and tasks, a list
        of {task, kind, labels, max_length, aliases}. A fleet that did not change costs one statement and takes no lock,
        whatever its size.
        """
        with self._database.connection() as connection:
            known = {row["agent"]: row for row in connection.execute(self._intake["synced"])}
            changed = [record for record in records if _differs(record, known.get(record["agent"]))]
            retired = set() if keep else known.keys() - {record["agent"] for record in records}
            if not changed and not retired:
                return
            connection.execute(self._intake["lock_sync"])
            for record in changed:
                self._sync_one(connection, record)
            if retired:
                connection.execute(self._intake["retire_agents"], {"names": [record["agent"] for record in records]})

    def _sync_one(self, connection: Connection, record: Mapping[str, Any]) -> None:
        from psycopg.types.json import Jsonb

        connection.execute(self._intake["sync_agent"], {**record, "record": Jsonb(record["record"])})
        rows = _task_rows(record)
        names = [row["task"] for row in rows]
        connection.execute(self._intake["drop_tasks"], {"agent": record["agent"], "names": names})
        for row in rows:
            connection.execute(self._intake["sync_task"], row)

    def set_override(self, name: str, value: float | None, *, by: str = "") -> None:
        """Set one of update_threshold, max_buffer_size, performance_window, rollback_threshold for the deployment.

        It holds for every process and beats environment and files, but not what an agent's own file declares; None
        clears it. ``by`` says who: one that begins with "environment" does not replace one that begins with "constructor".
        """
        with self._database.connection() as connection:
            if value is None:
                connection.execute(self._intake["drop_override"], {"name": name})
            else:
                connection.execute(self._intake["override"], {"name": name, "value": value, "set_by": by})

    def overrides(self) -> dict[str, float]:
        """The overrides that hold now."""
        with self._database.connection() as connection:
            return {row["name"]: row["value"] for row in connection.execute(self._intake["overrides"])}


def _task_rows(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row per name of a task: its own, and each alias."""
    return [
        {**task, "agent": record["agent"], "task": name, "alias_of": None if name == task["task"] else task["task"]}
        for task in record["tasks"]
        for name in (task["task"], *task.get("aliases", ()))
    ]


def _differs(record: Mapping[str, Any], stored: Mapping[str, Any] | None) -> bool:
    """Whether an agent must be written. A difference that is none (a rounded number) costs a statement that changes nothing."""
    if stored is None:
        return True
    fields = ("file_digest", "update_threshold", "max_buffer_size", "holdout_share")
    names = ("task", "alias_of", "kind", "labels", "max_length")
    tasks = sorted(({name: row[name] for name in names} for row in _task_rows(record)), key=itemgetter("task"))
    wanted = json.loads(json.dumps({"record": record["record"], "tasks": tasks}))  # as it comes back: lists for tuples
    return any(record[name] != stored[name] for name in fields) or any(wanted[name] != stored[name] for name in wanted)


def _json(value: JSON) -> str | None:
    return None if value is None else json.dumps(value, ensure_ascii=False, allow_nan=False)


def _as_row(ordinal: int, example: Example) -> tuple[Any, ...]:
    return (
        ordinal, example.example_id, example.agent, example.task, example.input_text, example.expected_output,
        example.predicted_output, example.user_feedback, example.uncertainty, example.importance,
        int(example.priority), example.source.value, example.source_url, example.source_id, example.tag,
        is_correction(example), plain_digest(example.input_text), text_digest(example.input_text), example.created_at,
    )  # fmt: skip


_COLUMNS = (
    "ordinal", "example_id", "agent", "task", "input_text", "expected", "predicted", "feedback", "uncertainty",
    "importance", "priority", "source", "source_url", "source_id", "tag", "correction", "plain", "exact", "created_at",
)  # fmt: skip


_TYPES = (
    "int4", "uuid", "text", "text", "text", "jsonb", "jsonb", "text", "float8", "float8", "int2", "text", "text", "text",
    "text", "bool", "bytea", "bytea", "timestamptz",
)  # fmt: skip


def _as_parameters(ordinal: int, example: Example) -> dict[str, Any]:
    values = dict(zip(_COLUMNS, _as_row(ordinal, example), strict=True))
    return {**values, "expected": _json(example.expected_output), "predicted": _json(example.predicted_output)}


def _offset(offset: Offset) -> dict[str, Any]:
    return {
        "source": offset.source, "part": offset.part, "position": offset.position, "digest": offset.digest,
        "finished": offset.finished,
    }  # fmt: skip


def _rejection(record: Rejection) -> dict[str, Any]:
    return {
        "source": record.source, "part": record.part, "position": record.position, "field": record.field,
        "reason": record.reason, "raw": record.raw,
    }  # fmt: skip


def _sum(one: AddResult, two: AddResult) -> AddResult:
    return AddResult(
        added=one.added + two.added, duplicates=one.duplicates + two.duplicates,
        quarantined=one.quarantined + two.quarantined, evicted=one.evicted + two.evicted,
    )  # fmt: skip
