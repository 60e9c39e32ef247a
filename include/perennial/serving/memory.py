"""``ServingStore`` in memory, beside ``MemoryRollouts``: the twin that tests and benchmarks use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from perennial.domain.words import JSON
from perennial.errors import StoreUnavailable
from perennial.rollout.memory import MemoryRollouts
from perennial.rollout.rows import GatewayRow, Outcome, RecentInput
from perennial.serving.store import Recorded, Wanted, fresh, join_tasks


class MemoryServing:
    """Shares its lists with the rollouts, as the tables are shared. ``away`` makes every call fail, as a lost
    PostgreSQL does."""

    def __init__(self, rollouts: MemoryRollouts, tasks: Sequence[Mapping[str, Any]] = ()) -> None:
        self._rollouts = rollouts
        self.tasks = list(tasks)  # rows: agent, name, task, kind, max_length, labels, holdout_share
        self.recorded: dict[UUID, Recorded] = {}
        self.away = False

    def wanted(self) -> list[Wanted]:
        """See ``ServingStore.wanted``."""
        self._reach()
        return join_tasks(self._rollouts.all_serving(), self.tasks)

    def heartbeat(self, rows: Sequence[GatewayRow]) -> None:
        """See ``ServingStore.heartbeat``."""
        self._reach()
        for row in rows:
            self._rollouts.heartbeats[row.instance, row.agent] = (datetime.now(UTC), row)

    def record(self, batch: Sequence[Recorded]) -> None:
        """See ``ServingStore.record``."""
        self._reach()
        for item in batch:
            if item.answer.prediction_id in self.recorded:
                continue
            self.recorded[item.answer.prediction_id] = item
            self._rollouts.answers.append((datetime.now(UTC), item.answer))
            if item.text is not None:
                recent = RecentInput(task=item.answer.task, text=item.text)
                self._rollouts.inputs.append((datetime.now(UTC), item.answer.agent, recent))

    def prune(self, agent: str, *, keep: int, hours: int) -> None:
        """See ``ServingStore.prune``; age is not modelled here."""
        self._reach()
        mine = [entry for entry in self._rollouts.inputs if entry[1] == agent][-keep:]
        self._rollouts.inputs = [entry for entry in self._rollouts.inputs if entry[1] != agent] + mine

    def answered(self, ids: Sequence[UUID]) -> dict[UUID, Recorded]:
        """See ``ServingStore.answered``."""
        self._reach()
        return {identity: self.recorded[identity] for identity in ids if identity in self.recorded}

    def told(self, ids: Sequence[UUID]) -> dict[UUID, JSON]:
        """See ``ServingStore.told``."""
        self._reach()
        known = self._rollouts.outcomes
        return {identity: known[identity][1].actual for identity in ids if identity in known}

    def tell(self, outcomes: Sequence[Outcome]) -> list[bool]:
        """See ``ServingStore.tell``."""
        self._reach()
        news = fresh(outcomes, {identity: known.actual for identity, (_, known) in self._rollouts.outcomes.items()})
        for outcome, new in zip(outcomes, news, strict=True):
            if new:
                self._rollouts.outcomes[outcome.prediction_id] = (datetime.now(UTC), outcome)
        return news

    def _reach(self) -> None:
        if self.away:
            raise StoreUnavailable("the store in memory plays an outage")
