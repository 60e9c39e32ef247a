"""Questions to a person over a ``MemoryBuffer``; ``RedactionTasks`` documents each method."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from uuid import UUID

from perennial.audit.log import AuditLog
from perennial.domain.words import RedactionDecision, RedactionState, State
from perennial.ingest.aside import MOST_COUNTED, NEWEST
from perennial.ingest.memory import MemoryBuffer
from perennial.ingest.memory_rows import Asked, MemoryState, Row
from perennial.ingest.redaction_tasks import RedactionNote, RedactionOrder, RedactionTask, checked, entry_of, refused

_DROPPABLE = (State.RAW, State.READY, State.HELD, State.UNLABELLED, State.QUARANTINED, State.SUPERSEDED)


class MemoryRedactionTasks:
    """Looks at and answers the tasks of one ``MemoryBuffer``, and notes it in ``audit``."""

    def __init__(self, buffer: MemoryBuffer, audit: AuditLog) -> None:
        self._state: MemoryState = buffer.state
        self._audit = audit

    def totals(self) -> Mapping[str, int]:
        """See ``RedactionTasks``."""
        with self._state.lock:
            found = Counter(one.agent for one in self._state.asked.values() if one.state is RedactionState.OPEN)
        return {agent: min(found[agent], MOST_COUNTED + 1) for agent in sorted(found)}

    def tasks(
        self, agent: str, *, words: bool = False, before: int = NEWEST, limit: int = 50
    ) -> list[RedactionTask]:  # fmt: skip
        """See ``RedactionTasks``."""
        with self._state.lock:
            found = [
                one for one in self._state.asked.values()
                if one.agent == agent and one.state is RedactionState.OPEN and one.number < before
            ]  # fmt: skip
            return [
                RedactionTask(
                    number=one.number, task=one.task, round=one.round, kinds=one.kinds, doubts=one.doubts if words else (),
                    rows=len(one.example_ids), version=one.version, opened_at=one.opened_at,
                )
                for one in sorted(found, key=lambda one: -one.number)[:limit]
            ]  # fmt: skip

    def decide(self, order: RedactionOrder) -> str | None:
        """See ``RedactionTasks``."""
        checked(order)
        with self._state.lock:
            found = next(
                (one for one in self._state.asked.values() if (one.agent, one.number) == (order.agent, order.number)),
                None,
            )
            rows = self._rows(found) if found else []
            told = refused(
                order, found.state if found else None, found.round if found else 0, [row.state for row in rows]
            )
            if told is not None or found is None:
                return told
            ids = [row.example.example_id for row in rows]
            # first: what fails here has changed nothing
            self._audit.append(**entry_of(order, found.task, found.kinds, ids))
            self._carry_out(order, found, rows)
            return None

    def _carry_out(self, order: RedactionOrder, found: Asked, rows: Sequence[Row]) -> None:
        words = {doubt.key for doubt in found.doubts}
        restores = order.decision is RedactionDecision.RESTORE
        found.cleared = found.cleared | words if restores else found.cleared - words
        found.state, found.doubts = order.decision.state, ()
        gone = set()
        for row in rows:
            if restores and row.redaction is not None and row.state not in (State.EVICTED, State.PURGED):
                row.redaction = {**row.redaction, "version": ""}
            elif order.decision is RedactionDecision.DROP and row.state in _DROPPABLE:
                row.state, row.reason, row.job_id, row.attempt = State.EVICTED, f"dropped by {order.actor}", None, None
                gone.add(row.example.example_id)
        self._state.restore_corrected(gone)

    def _rows(self, found: Asked) -> list[Row]:
        return [row for row in self._state.rows if row.example.example_id in found.example_ids]

    def cleared(self, agent: str) -> Mapping[bytes, frozenset[str]]:
        """See ``RedactionTasks``."""
        with self._state.lock:
            return {
                key: frozenset(one.cleared)
                for (name, key), one in self._state.asked.items()
                if name == agent and one.cleared
            }

    def notes(self, ids: Sequence[UUID]) -> dict[UUID, RedactionNote]:
        """See ``RedactionTasks``."""
        wanted = set(ids)
        with self._state.lock:
            return {
                row.example.example_id: RedactionNote(
                    version=row.redaction["version"], cleared=frozenset(row.redaction.get("cleared", ()))
                )
                for row in self._state.rows
                if row.example.example_id in wanted and row.redaction is not None
            }
