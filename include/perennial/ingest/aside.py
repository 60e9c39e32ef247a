"""What a person does with rows that wait for one: look at them, let them train again, or set them aside for good.

Rows stand aside as ``quarantined`` (admission or the second look for personal data refused them), ``held`` (two trainings or the
screening did) and ``unlabelled``. They are grouped by task, state and the first word of their reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol
from uuid import UUID

from perennial.domain.origin import HELD_WORDS, NEW_LABEL
from perennial.domain.words import JSON, AsideAction, State
from perennial.errors import AsideRefused
from perennial.storage.database import Database
from perennial.storage.queries import load

if TYPE_CHECKING:
    from perennial.storage.database import Connection

_FILE = "aside.sql"

ASIDE = (State.QUARANTINED, State.HELD, State.UNLABELLED)
UNKNOWN_TASK = "unknown_task"
NEWEST = 2**63 - 1  # above every row's number: the first page
MOST_COUNTED = 10_000  # a count is exact up to here
MOST_GROUPS = 200  # of one state that are listed
LETTERS = 400  # of a text that a page shows


@dataclass(frozen=True, kw_only=True, slots=True)
class AsideTotal:
    """How many rows of one agent stand aside in one state; ``rows`` above ``MOST_COUNTED`` means at least so many."""

    agent: str
    state: State
    rows: int


@dataclass(frozen=True, kw_only=True, slots=True)
class AsideKey:
    """One group: the rows of a task in one state for one reason. ``code`` is the reason's first word, see ``code_of``."""

    state: State
    task: str
    code: str


@dataclass(frozen=True, kw_only=True, slots=True)
class AsideGroup:
    """A group with its size; ``rows`` above ``MOST_COUNTED`` means at least so many."""

    key: AsideKey
    rows: int


@dataclass(frozen=True, kw_only=True, slots=True)
class AsideRow:
    """One row that stands aside, as a person may see it.

    ``text`` is redacted and at most ``LETTERS`` long (``length``: of the whole); text and label are None for quarantined rows, where
    nothing says that they hold no personal data. ``number`` grows with every row that comes in.
    """

    number: int
    example_id: UUID
    task: str
    state: State
    reason: str
    priority: int
    correction: bool
    source: str
    source_id: str
    refusals: int
    created_at: datetime
    added_at: datetime
    text: str | None
    length: int | None
    label: JSON

    @property
    def key(self) -> AsideKey:
        """The group that it belongs to."""
        return AsideKey(state=self.state, task=self.task, code=code_of(self.reason))


@dataclass(frozen=True, kw_only=True, slots=True)
class AsideOrder:
    """A person's word on rows of one group: on ``ids``, or (None) on all of them up to row number ``until``.

    The group is the fence: rows that are not in it any more stay as they are.
    """

    agent: str
    action: AsideAction
    key: AsideKey
    actor: str
    why: str
    ids: tuple[UUID, ...] | None = None
    until: int = NEWEST


@dataclass(frozen=True, kw_only=True, slots=True)
class AsideMoved:
    """What one step of an order moved; ``holdout`` rows came in with refused batches and followed their group."""

    ids: tuple[UUID, ...] = ()
    holdout: int = 0


class AsideStore(Protocol):
    """Rows that stand aside. Both forms meet the laws in ``tests/contract/test_aside.py``."""

    def totals(self) -> list[AsideTotal]:
        """Rows of every agent by state, for agents that have any."""
        ...

    def groups(self, agent: str) -> list[AsideGroup]:
        """The agent's groups, by state, task and reason; at most ``MOST_GROUPS`` of each state."""
        ...

    def group(self, agent: str, key: AsideKey) -> AsideGroup | None:
        """One group with its size, listed or not; None when no row is in it."""
        ...

    def rows(self, agent: str, *, key: AsideKey | None = None, before: int = NEWEST, limit: int = 50) -> list[AsideRow]:
        """Rows with a number below ``before``, newest first; of one group, or of all."""
        ...

    def settle(self, order: AsideOrder, *, limit: int = 500) -> AsideMoved:
        """Carry an order out on at most ``limit`` rows, with its audit entry in the same step; nothing left to move: no entry.

        The entry holds ids and counts, never a text. Raises AsideRefused when the reason does not allow it. Killed anywhere it is
        done or not; again it goes on with what is left.
        """
        ...


def code_of(reason: str) -> str:
    """The word of a reason: what stands before its first colon, 64 characters at most; the database's column ``aside`` says the same.

    >>> code_of("held: slices: topic fell"), code_of("source_cap")
    ('held', 'source_cap')
    """
    return reason.split(":", 1)[0][:64]


def refusal(action: AsideAction, key: AsideKey) -> str | None:
    """Why rows of a group cannot be released or dropped, with what to do instead; None when they can.

    >>> refusal(AsideAction.DROP, AsideKey(state=State.UNLABELLED, task="topic", code="")) is None
    True
    >>> refusal(AsideAction.RELEASE, AsideKey(state=State.QUARANTINED, task="mood", code="unknown_task"))
    "the fleet does not know the task 'mood'; declare it (or an alias) in the agent's file and its rows come back by themselves"
    """
    if key.state not in ASIDE:
        return f"rows that are {key.state.value} do not stand aside; look again"
    if action is AsideAction.DROP:
        return None
    if key.state is State.UNLABELLED:
        return "rows without a label cannot be trained on; send a correction with the label, or drop them"
    if key.state is State.QUARANTINED and key.code == UNKNOWN_TASK:
        return (
            f"the fleet does not know the task {key.task[:64]!r}; declare it (or an alias) in the agent's file and its rows come "
            "back by themselves"
        )
    if key.state is State.HELD and key.code == NEW_LABEL:
        return (
            "rows of a label that is still too rare come back by themselves once enough carry it; only drop is possible"
        )
    return None


def checked(order: AsideOrder) -> AsideOrder:
    """The order, when it names who and why and its group allows it; AsideRefused otherwise."""
    if not order.actor.strip() or not order.why.strip():
        raise AsideRefused("rows are released or dropped with the name of who decides, and a reason")
    problem = refusal(order.action, order.key)
    if problem is not None:
        raise AsideRefused(problem)
    return order


def takes_holdout(order: AsideOrder) -> bool:
    """Whether holdout rows that came in with refused batches follow: when all of a task's refused rows are decided on."""
    return order.ids is None and order.key.state is State.HELD and order.key.code not in HELD_WORDS


def entry_of(order: AsideOrder, moved: AsideMoved) -> dict[str, Any]:
    """The audit entry of one step: ids and counts."""
    verb = "released" if order.action is AsideAction.RELEASE else "dropped"
    return {
        "actor": order.actor, "action": f"{order.key.state.value}_{verb}", "agent": order.agent, "subject": order.key.task,
        "detail": {
            "why": order.why, "reason_code": order.key.code, "rows": len(moved.ids), "holdout": moved.holdout,
            "ids": [str(identity) for identity in moved.ids], "whole_reason": order.ids is None,
        },
    }  # fmt: skip


class PostgresAside:
    """``AsideStore`` over the app role, which cannot read originals. Raises StoreUnavailable when PostgreSQL is away."""

    _sql = load("perennial.ingest", _FILE)
    _audit = load("perennial.audit")

    def __init__(self, database: Database) -> None:
        self._database = database

    def totals(self) -> list[AsideTotal]:
        """See ``AsideStore``."""
        return [
            AsideTotal(agent=row["agent"], state=State(row["state"]), rows=row["rows"])
            for row in self._all("aside_totals", {"most": MOST_COUNTED})
        ]

    def groups(self, agent: str) -> list[AsideGroup]:
        """See ``AsideStore``."""
        values = {"agent": agent, "most": MOST_COUNTED, "groups": MOST_GROUPS}
        return [
            AsideGroup(key=AsideKey(state=State(row["state"]), task=row["task"], code=row["code"]), rows=row["rows"])
            for row in self._all("aside_groups", values)
        ]

    def group(self, agent: str, key: AsideKey) -> AsideGroup | None:
        """See ``AsideStore``."""
        (row,) = self._all("aside_group", {"agent": agent, "most": MOST_COUNTED, **_key_values(key)})
        return AsideGroup(key=key, rows=row["rows"]) if row["rows"] else None

    def rows(self, agent: str, *, key: AsideKey | None = None, before: int = NEWEST, limit: int = 50) -> list[AsideRow]:
        """See ``AsideStore``."""
        values: dict[str, Any] = {"agent": agent, "before": before, "limit": limit, "letters": LETTERS}
        statement = "aside_newest"
        if key is not None:
            values |= _key_values(key)
            statement = "aside_of_group"
        return [AsideRow(**{**row, "state": State(row["state"])}) for row in self._all(statement, values)]

    def settle(self, order: AsideOrder, *, limit: int = 500) -> AsideMoved:
        """See ``AsideStore``."""
        checked(order)
        values: dict[str, Any] = {
            "agent": order.agent, "actor": order.actor, "until": order.until, "limit": limit, **_key_values(order.key)
        }  # fmt: skip
        with self._database.connection() as connection:
            if order.ids is None:
                picked = connection.execute(self._sql["aside_pick_group"], values).fetchall()
            else:
                values["ids"] = list(order.ids[:limit])
                picked = connection.execute(self._sql["aside_pick_ids"], values).fetchall()
            moved = self._move(connection, order, {**values, "ids": [row["example_id"] for row in picked]})
            if moved.ids or moved.holdout:
                self._note(connection, order, moved)
        return moved

    def _move(self, connection: Connection, order: AsideOrder, values: Mapping[str, Any]) -> AsideMoved:
        releases, ids = order.action is AsideAction.RELEASE, tuple(values["ids"])
        if ids and not releases:
            connection.execute(self._sql["aside_drop"], values)
            connection.execute(self._sql["restore_corrected"], values)
        elif ids and order.key.state is State.HELD:
            connection.execute(self._sql["aside_release_held"], values)
        elif ids:
            connection.execute(self._sql["aside_release_quarantined"], values)
            connection.execute(self._sql["aside_overtake"], values)
        holdout = 0
        if takes_holdout(order):
            statement = "aside_holdout_release" if releases else "aside_holdout_drop"
            holdout = connection.execute(self._sql[statement], values).rowcount
        if releases and ids:
            connection.execute(self._sql["aside_wake"], values)
        return AsideMoved(ids=ids, holdout=holdout)

    def _note(self, connection: Connection, order: AsideOrder, moved: AsideMoved) -> None:
        from psycopg.types.json import Jsonb

        entry = entry_of(order, moved)
        connection.execute(self._audit["append"], {**entry, "detail": Jsonb(entry["detail"])})

    def _all(self, statement: str, values: Mapping[str, Any]) -> Sequence[dict[str, Any]]:
        with self._database.connection() as connection:
            return connection.execute(self._sql[statement], values).fetchall()


def _key_values(key: AsideKey) -> dict[str, str]:
    return {"state": key.state.value, "task": key.task, "code": key.code}


def release_held(database: Database, agent: str, actor: str, reason: str = "") -> int:
    """Let the agent's held rows (two refused trainings) be claimed again, and the holdout rows that came with them judge again.

    Returns how many rows changed; the audit says so in the same transaction. Rows of a too rare label keep waiting.
    """
    return _decide_held(database, "release_held", "held_released", agent, actor, reason)


def drop_held(database: Database, agent: str, actor: str, reason: str = "") -> int:
    """Take the agent's held rows out of training for good, and the holdout rows that came with them out of evaluation.

    They stay in the books as evicted. Returns how many; the audit says so in the same transaction.
    """
    return _decide_held(database, "drop_held", "held_dropped", agent, actor, reason)


def _decide_held(database: Database, statement: str, action: str, agent: str, actor: str, reason: str) -> int:
    from psycopg.types.json import Jsonb

    with database.connection() as connection:
        queries = load("perennial.ingest", _FILE)
        moved = connection.execute(queries[statement], {"agent": agent, "actor": actor})
        count = moved.rowcount
        if statement == "drop_held":
            gone = [row["example_id"] for row in moved.fetchall() if row["correction"]]
            connection.execute(queries["restore_corrected"], {"ids": gone})
        entry = {"actor": actor, "action": action, "agent": agent, "subject": agent}
        detail = Jsonb({"rows": count, "reason": reason})
        connection.execute(load("perennial.audit")["append"], {**entry, "detail": detail})
    return count
