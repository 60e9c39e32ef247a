"""Questions to a person whether a find is personal data. The find is replaced already; an answer lets it stand, or settles it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from perennial.domain.redaction import Doubt
from perennial.domain.words import RedactionDecision, RedactionState, State
from perennial.errors import AsideRefused
from perennial.ingest.aside import MOST_COUNTED, NEWEST
from perennial.storage.database import Database
from perennial.storage.queries import load

MOST_CLEARED = (
    100_000  # texts of an agent whose cleared words one admission knows; beyond it the oldest are redacted in full
)
_IN_TRAINING = frozenset({State.CLAIMED, State.TRAINED})


@dataclass(frozen=True, kw_only=True, slots=True)
class RedactionTask:
    """One open question. ``doubts`` is empty where the caller did not ask for the words; ``rows`` share the text and the answer.

    ``round`` grows whenever there is something new to ask: an answer names the one that was seen.
    """

    number: int
    task: str
    round: int
    kinds: Mapping[str, int]
    doubts: tuple[Doubt, ...]
    rows: int
    version: str
    opened_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class RedactionOrder:
    """A person's answer to one task. ``round`` None: as the task stands now."""

    agent: str
    number: int
    decision: RedactionDecision
    actor: str
    why: str
    round: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class RedactionNote:
    """What a row remembers of its redaction: by which version, and keys of words that stand because a person said so."""

    version: str
    cleared: frozenset[str]


class RedactionTasks(Protocol):
    """Open questions and their answers. Both forms meet the laws in ``tests/contract/test_redaction_tasks.py``."""

    def totals(self) -> Mapping[str, int]:
        """Open tasks by agent; above ``MOST_COUNTED`` it means at least so many."""
        ...

    def tasks(
        self, agent: str, *, words: bool = False, before: int = NEWEST, limit: int = 50
    ) -> list[RedactionTask]:  # fmt: skip
        """Open tasks below a number, newest first. ``words`` only for somebody who may see what may be personal data."""
        ...

    def decide(self, order: RedactionOrder) -> str | None:
        """Carry an answer out with its audit entry, in one step; None when done, else one sentence that says why not.

        Confirming keeps the stand-ins. Restoring has the next admission redact the rows anew with these words left standing.
        Dropping takes the rows out of training. The words leave the table in each case. Raises AsideRefused without a name or reason.
        """
        ...

    def cleared(self, agent: str) -> Mapping[bytes, frozenset[str]]:
        """Keyed digests of originals with the keys of words that may stand in them."""
        ...

    def notes(self, ids: Sequence[UUID]) -> dict[UUID, RedactionNote]:
        """How these rows were redacted; rows that were not are left out."""
        ...


def refused(
    order: RedactionOrder, state: RedactionState | None, round_now: int, rows: Collection[State]
) -> str | None:  # fmt: skip
    """Why an answer counts no more, with what to do; None when it does. ``state`` None: there is no such task.

    >>> order = RedactionOrder(agent="scout", number=7, decision=RedactionDecision.DROP, actor="ana", why="a test", round=1)
    >>> refused(order, RedactionState.CONFIRMED, 1, [])
    'task 7 is confirmed already; nothing changed'
    >>> refused(order, RedactionState.OPEN, 1, [State.TRAINED])
    'a row of task 7 is in a training or was trained on, so it cannot be dropped; confirm or restore it'
    """
    if state is None:
        return f"{order.agent} has no redaction task {order.number}; `perennial quarantine {order.agent} --unsure` lists them"
    if state is not RedactionState.OPEN:
        return f"task {order.number} is {state.value} already; nothing changed"
    if order.round is not None and order.round != round_now:
        return f"task {order.number} asks about other words by now; look again"
    if order.decision is RedactionDecision.DROP and _IN_TRAINING & set(rows):
        return f"a row of task {order.number} is in a training or was trained on, so it cannot be dropped; confirm or restore it"
    return None


def checked(order: RedactionOrder) -> RedactionOrder:
    """The order, when it says who and why; AsideRefused otherwise."""
    if not order.actor.strip() or not order.why.strip():
        raise AsideRefused("a redaction task is answered with the name of who decides, and a reason")
    return order


def entry_of(order: RedactionOrder, task: str, kinds: Mapping[str, int], ids: Sequence[UUID]) -> dict[str, Any]:
    """The audit entry of an answer: number, kinds and ids, no word of the text."""
    return {
        "actor": order.actor, "action": f"redaction_{order.decision.state.value}", "agent": order.agent, "subject": task,
        "detail": {
            "why": order.why, "task": order.number, "kinds": dict(kinds), "rows": len(ids), "ids": [str(one) for one in ids],
        },
    }  # fmt: skip


class PostgresRedactionTasks:
    """``RedactionTasks`` over the app role, which reads no originals. Raises StoreUnavailable when PostgreSQL is away."""

    _sql = load("perennial.ingest", "redaction_tasks.sql")
    _audit = load("perennial.audit")

    def __init__(self, database: Database) -> None:
        self._database = database

    def totals(self) -> Mapping[str, int]:
        """See ``RedactionTasks``."""
        with self._database.connection() as connection:
            rows = connection.execute(self._sql["task_totals"], {"most": MOST_COUNTED}).fetchall()
        return {row["agent"]: row["tasks"] for row in rows}

    def tasks(
        self, agent: str, *, words: bool = False, before: int = NEWEST, limit: int = 50
    ) -> list[RedactionTask]:  # fmt: skip
        """See ``RedactionTasks``."""
        values = {"agent": agent, "words": words, "before": before, "limit": limit}
        with self._database.connection() as connection:
            rows = connection.execute(self._sql["open_tasks"], values).fetchall()
        return [RedactionTask(**{**row, "doubts": tuple(Doubt(**one) for one in row["doubts"])}) for row in rows]

    def decide(self, order: RedactionOrder) -> str | None:
        """See ``RedactionTasks``."""
        from psycopg.types.json import Jsonb

        checked(order)
        values: dict[str, Any] = {"agent": order.agent, "number": order.number, "actor": order.actor}
        with self._database.connection() as connection:
            rows = connection.execute(self._sql["lock_rows"], values).fetchall()
            found = connection.execute(self._sql["lock_task"], values).fetchone()
            state = None if found is None else RedactionState(found["state"])
            told = refused(order, state, found["round"] if found else 0, [State(row["state"]) for row in rows])
            if told is not None or found is None:
                return told
            values |= {
                "state": order.decision.state.value, "restores": order.decision is RedactionDecision.RESTORE,
                "words": [one["key"] for one in found["doubts"]], "ids": [row["example_id"] for row in rows],
            }  # fmt: skip
            connection.execute(self._sql["decide"], values)
            if order.decision is RedactionDecision.RESTORE:
                connection.execute(self._sql["to_redact_again"], values)
            elif order.decision is RedactionDecision.DROP:
                dropped = connection.execute(self._sql["drop_rows"], values).fetchall()
                connection.execute(self._sql["restore_corrected"], {"ids": [row["example_id"] for row in dropped]})
            entry = entry_of(order, found["task"], found["kinds"], values["ids"])
            connection.execute(self._audit["append"], {**entry, "detail": Jsonb(entry["detail"])})
        return None

    def cleared(self, agent: str) -> Mapping[bytes, frozenset[str]]:
        """See ``RedactionTasks``."""
        with self._database.connection() as connection:
            rows = connection.execute(self._sql["cleared"], {"agent": agent, "limit": MOST_CLEARED}).fetchall()
        return {bytes(row["text_key"]): frozenset(row["cleared"]) for row in rows}

    def notes(self, ids: Sequence[UUID]) -> dict[UUID, RedactionNote]:
        """See ``RedactionTasks``."""
        with self._database.connection() as connection:
            rows = connection.execute(self._sql["notes"], {"ids": list(ids)}).fetchall()
        return {
            row["example_id"]: RedactionNote(version=row["version"] or "", cleared=frozenset(row["cleared"] or ()))
            for row in rows
        }
