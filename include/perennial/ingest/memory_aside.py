"""Rows that stand aside in a ``MemoryBuffer``; ``AsideStore`` documents each method."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from perennial.audit.log import AuditLog
from perennial.domain.origin import RELEASED
from perennial.domain.words import AsideAction, State
from perennial.ingest.aside import (
    ASIDE,
    LETTERS,
    MOST_COUNTED,
    MOST_GROUPS,
    NEWEST,
    AsideGroup,
    AsideKey,
    AsideMoved,
    AsideOrder,
    AsideRow,
    AsideTotal,
    checked,
    code_of,
    entry_of,
    takes_holdout,
)
from perennial.ingest.memory import MemoryBuffer
from perennial.ingest.memory_rows import MemoryState, Row
from perennial.ingest.postgres_jobs import WITH_HELD_BATCH


class MemoryAside:
    """Looks at and moves the rows of one ``MemoryBuffer``, and notes it in ``audit``."""

    def __init__(self, buffer: MemoryBuffer, audit: AuditLog) -> None:
        self._state: MemoryState = buffer.state
        self._audit = audit

    def totals(self) -> list[AsideTotal]:
        """See ``AsideStore``."""
        with self._state.lock:
            found = Counter((row.example.agent, row.state) for row in self._state.rows if row.state in ASIDE)
        order = sorted(found.items(), key=lambda item: (item[0][0], item[0][1].value))
        return [AsideTotal(agent=agent, state=state, rows=min(n, MOST_COUNTED + 1)) for (agent, state), n in order]

    def groups(self, agent: str) -> list[AsideGroup]:
        """See ``AsideStore``."""
        with self._state.lock:
            found = Counter(_key(row) for row in self._state.of(agent) if row.state in ASIDE)
        order = sorted(found.items(), key=lambda item: (_PLACE[item[0].state], item[0].task, item[0].code))
        listed = [one for state in _PLACE for one in [one for one in order if one[0].state is state][:MOST_GROUPS]]
        return [AsideGroup(key=key, rows=min(n, MOST_COUNTED + 1)) for key, n in listed]

    def group(self, agent: str, key: AsideKey) -> AsideGroup | None:
        """See ``AsideStore``."""
        with self._state.lock:
            found = sum(row.state in ASIDE and _key(row) == key for row in self._state.of(agent))
        return AsideGroup(key=key, rows=min(found, MOST_COUNTED + 1)) if found else None

    def rows(self, agent: str, *, key: AsideKey | None = None, before: int = NEWEST, limit: int = 50) -> list[AsideRow]:
        """See ``AsideStore``."""
        with self._state.lock:
            found = [
                row for row in self._state.of(agent)
                if row.state in ASIDE and row.number < before and (key is None or _key(row) == key)
            ]  # fmt: skip
            return [_shown(row) for row in sorted(found, key=lambda row: -row.number)[:limit]]

    def settle(self, order: AsideOrder, *, limit: int = 500) -> AsideMoved:
        """See ``AsideStore``."""
        checked(order)
        with self._state.lock:
            picked = [
                row for row in self._state.of(order.agent)
                if row.state in ASIDE and _key(row) == order.key
                and (row.number <= order.until if order.ids is None else row.example.example_id in order.ids[:limit])
            ]  # fmt: skip
            picked = sorted(picked, key=lambda row: -row.number)[:limit]
            follows = self._follows(order) if takes_holdout(order) else []
            moved = AsideMoved(ids=tuple(row.example.example_id for row in picked), holdout=len(follows))
            if moved.ids or moved.holdout:
                self._audit.append(**entry_of(order, moved))  # first: what fails here has moved nothing
            for row in picked:
                self._move(order, row)
            for row in follows:
                self._follow(order, row)
            if order.action is AsideAction.DROP:
                self._state.restore_corrected(set(moved.ids))
            if order.action is AsideAction.RELEASE and order.key.state is State.QUARANTINED:
                self._overtake(picked)
            return moved

    def _move(self, order: AsideOrder, row: Row) -> None:
        row.job_id = row.attempt = None
        if order.action is AsideAction.DROP:
            row.state, row.reason = State.EVICTED, f"dropped by {order.actor}"
        elif order.key.state is State.HELD:
            row.state, row.reason, row.refusals = State.READY, RELEASED, 0
        else:
            row.state = State.RAW if row.example.expected_output is not None else State.UNLABELLED
            row.reason, row.refusals, row.admitted_at = "", 0, None
            row.text = row.feedback = row.label = row.redaction = None
        if order.action is AsideAction.RELEASE and row.superseded_by is not None:
            row.state, row.reason = State.SUPERSEDED, "corrected"  # a correction overtook it while a training had it

    def _overtake(self, released: Iterable[Row]) -> None:
        for winner in sorted((row for row in released if row.correction), key=lambda row: -row.number):
            if winner.state is State.SUPERSEDED:
                continue  # a newer correction of the same input was released with it
            self._state.supersede(winner)

    def _follows(self, order: AsideOrder) -> list[Row]:
        return [
            row for row in self._state.of(order.agent)
            if row.task == order.key.task and row.holdout and row.state is State.READY and row.reason == WITH_HELD_BATCH
            and row.number <= order.until
        ]  # fmt: skip

    def _follow(self, order: AsideOrder, row: Row) -> None:
        if order.action is AsideAction.DROP:
            row.state, row.reason = State.EVICTED, f"dropped by {order.actor}"
        else:
            row.reason, row.job_id, row.attempt = "", None, None


_PLACE = {
    state: place for place, state in enumerate((State.UNLABELLED, State.QUARANTINED, State.HELD))
}  # as the database sorts them


def _key(row: Row) -> AsideKey:
    return AsideKey(state=row.state, task=row.task, code=code_of(row.reason))


def _shown(row: Row) -> AsideRow:
    one = row.example
    readable = row.state is not State.QUARANTINED and row.admitted_at is not None and row.text is not None
    return AsideRow(
        number=row.number, example_id=one.example_id, task=row.task, state=row.state, reason=row.reason,
        priority=int(one.priority), correction=row.correction, source=one.source.value, source_id=one.source_id,
        refusals=row.refusals, created_at=one.created_at, added_at=row.added_at,
        text=row.text[:LETTERS] if readable and row.text is not None else None,
        length=len(row.text) if readable and row.text is not None else None, label=row.label if readable else None,
    )  # fmt: skip
