"""What the gateway reads and writes: the protocol, and PostgreSQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol
from uuid import UUID

from perennial.domain.words import JSON, Arm, TaskKind
from perennial.rollout.rows import Answered, GatewayRow, Outcome, ServingRow
from perennial.storage.database import Database
from perennial.storage.queries import load


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskInfo:
    """A task as the gateway needs it; ``task`` is its own name, also when it was asked for by an alias."""

    task: str
    kind: TaskKind
    max_length: int  # characters
    holdout_share: float = 0.0  # of the agent's inputs
    labels: tuple[str, ...] = ()  # declared ones; none when they are learnt from the data


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """What should be served for one agent, and its tasks by name and alias."""

    row: ServingRow
    tasks: Mapping[str, TaskInfo]


@dataclass(frozen=True, kw_only=True, slots=True)
class Recorded:
    """An answer on its way to the store, with its text (None: not to be kept)."""

    answer: Answered
    text: str | None


class ServingStore(Protocol):
    """The gateway's side of the store. Raises StoreUnavailable when it is away: the gateway goes on with what it
    has."""

    def wanted(self) -> list[Wanted]:
        """Every agent with a serving row or a task."""
        ...

    def heartbeat(self, rows: Sequence[GatewayRow]) -> None:
        """Say what this process has loaded."""
        ...

    def record(self, batch: Sequence[Recorded]) -> None:
        """Write answers and their texts; a repeat changes nothing."""
        ...

    def prune(self, agent: str, *, keep: int, hours: int) -> None:
        """Forget all but the newest ``keep`` texts of an agent, and those older than ``hours``."""
        ...

    def answered(self, ids: Sequence[UUID]) -> dict[UUID, Recorded]:
        """Recorded answers by id; those that are not known are left out."""
        ...

    def told(self, ids: Sequence[UUID]) -> dict[UUID, JSON]:
        """What is known to be true, by prediction id."""
        ...

    def tell(self, outcomes: Sequence[Outcome]) -> list[bool]:
        """Write what was true, all or nothing; False where exactly this is known. A different value replaces the
        earlier."""
        ...


class PostgresServing:
    """``ServingStore`` over the app role."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._sql = load("perennial.serving")

    def wanted(self) -> list[Wanted]:
        """See ``ServingStore.wanted``."""
        with self._database.connection() as connection:
            rows = connection.execute(self._sql["serving"]).fetchall()
            tasks = connection.execute(self._sql["tasks"]).fetchall()
        return join_tasks([ServingRow(**row) for row in rows], tasks)

    def heartbeat(self, rows: Sequence[GatewayRow]) -> None:
        """See ``ServingStore.heartbeat``."""
        with self._database.connection() as connection, connection.cursor() as cursor:
            cursor.executemany(self._sql["heartbeat"], [asdict(row) for row in rows])

    def record(self, batch: Sequence[Recorded]) -> None:
        """See ``ServingStore.record``."""
        texts = [
            {"prediction_id": item.answer.prediction_id, "agent": item.answer.agent, "task": item.answer.task,
             "text": item.text}
            for item in batch
            if item.text is not None
        ]  # fmt: skip
        with self._database.connection() as connection, connection.cursor() as cursor:
            cursor.executemany(self._sql["add_prediction"], [_prediction(item.answer) for item in batch])
            if texts:
                cursor.executemany(self._sql["add_input"], texts)

    def prune(self, agent: str, *, keep: int, hours: int) -> None:
        """See ``ServingStore.prune``."""
        with self._database.connection() as connection:
            connection.execute(self._sql["prune_inputs"], {"agent": agent, "keep": keep, "hours": hours})

    def answered(self, ids: Sequence[UUID]) -> dict[UUID, Recorded]:
        """See ``ServingStore.answered``."""
        with self._database.connection() as connection:
            rows = connection.execute(self._sql["answered"], {"ids": list(ids)}).fetchall()
        found = {}
        for row in rows:
            text = row.pop("text")
            answer = Answered(**{**row, "arm": Arm(row["arm"]), "input_digest": bytes(row["input_digest"])})
            found[answer.prediction_id] = Recorded(answer=answer, text=text)
        return found

    def told(self, ids: Sequence[UUID]) -> dict[UUID, JSON]:
        """See ``ServingStore.told``."""
        with self._database.connection() as connection:
            rows = connection.execute(self._sql["known_outcomes"], {"ids": list(ids)}).fetchall()
        return {row["prediction_id"]: row["actual"] for row in rows}

    def tell(self, outcomes: Sequence[Outcome]) -> list[bool]:
        """See ``ServingStore.tell``."""
        if not outcomes:
            return []
        ids = [outcome.prediction_id for outcome in outcomes]
        with self._database.connection() as connection, connection.cursor() as cursor:
            rows = cursor.execute(self._sql["known_outcomes"], {"ids": ids}).fetchall()
            known = {row["prediction_id"]: row["actual"] for row in rows}
            news = fresh(outcomes, known)
            final = {outcome.prediction_id: outcome for outcome, new in zip(outcomes, news, strict=True) if new}
            changed = [identity for identity in final if identity in known]
            if changed:
                cursor.execute(self._sql["forget_outcomes"], {"ids": changed})
            if final:
                cursor.executemany(self._sql["add_outcome"], [_outcome(outcome) for outcome in final.values()])
        return news


def fresh(outcomes: Sequence[Outcome], known: Mapping[UUID, Any]) -> list[bool]:
    """Which outcomes say something that is not known, given the known values and those before them in the list."""
    values, news = dict(known), []
    for outcome in outcomes:
        news.append(outcome.prediction_id not in values or values[outcome.prediction_id] != outcome.actual)
        values[outcome.prediction_id] = outcome.actual
    return news


def join_tasks(rows: Sequence[ServingRow], tasks: Sequence[Mapping[str, Any]]) -> list[Wanted]:
    """Serving rows with their tasks; agents that have tasks and no row yet get an empty one."""
    by_agent: dict[str, dict[str, TaskInfo]] = {}
    for item in tasks:
        info = TaskInfo(
            task=item["task"], kind=TaskKind(item["kind"]), max_length=item["max_length"], holdout_share=item["holdout_share"],
            labels=tuple(item.get("labels") or ()),
        )  # fmt: skip
        by_agent.setdefault(item["agent"], {})[item["name"]] = info
    known = {row.agent: row for row in rows}
    agents = sorted(known.keys() | by_agent.keys())
    return [Wanted(row=known.get(agent, ServingRow(agent=agent)), tasks=by_agent.get(agent, {})) for agent in agents]


def _prediction(answer: Answered) -> dict[str, Any]:
    return {**asdict(answer), "arm": answer.arm.value, "output": None if answer.error else _json(answer.output)}


def _outcome(outcome: Outcome) -> dict[str, Any]:
    return {**asdict(outcome), "arm": outcome.arm.value, "actual": _json(outcome.actual)}


def _json(value: Any) -> Any:
    from psycopg.types.json import Jsonb

    return Jsonb(value)
