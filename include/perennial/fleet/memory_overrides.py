"""Overrides in memory."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from perennial.domain.words import JSON
from perennial.fleet.override_store import checked
from perennial.fleet.overrides import Override


class MemoryOverrides:
    """The same in memory, for tests and trials without a database; ``clock`` gives UTC times."""

    def __init__(self, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._clock = clock
        self._rows: list[dict[str, Any]] = []
        self._ids = itertools.count(1)
        self._guard = threading.Lock()

    def set(self, agent: str, key: str, value: JSON, *, seconds: float, actor: str, reason: str) -> Override:
        """See ``OverrideStore``."""
        who = checked(actor, reason, seconds)
        return Override(**self._add(agent, key, value, seconds, who))

    def unset(self, agent: str, key: str, *, actor: str, reason: str) -> bool:
        """See ``OverrideStore``."""
        who = checked(actor, reason, 1.0)
        if not any(one.key == key for one in self.active(agent)):
            return False
        self._add(agent, key, None, 0.0, who)
        return True

    def _add(self, agent: str, key: str, value: JSON, seconds: float, who: Mapping[str, Any]) -> dict[str, Any]:
        with self._guard:
            now = self._clock()
            row = {
                "id": next(self._ids), "agent": agent, "key": key, "value": value, "actor": who["actor"],
                "reason": who["reason"], "set_at": now, "until": now + timedelta(seconds=seconds),
            }  # fmt: skip
            self._rows.append(row)
            return row

    def active(self, agent: str | None = None) -> tuple[Override, ...]:
        """See ``OverrideStore``."""
        now = self._clock()
        last = {(row["agent"], row["key"]): row for row in self._rows if agent in (None, row["agent"])}
        rows = [last[name] for name in sorted(last)]
        return tuple(Override(**row) for row in rows if row["value"] is not None and row["until"] > now)

    def history(self, agent: str, limit: int = 50) -> tuple[dict[str, Any], ...]:
        """See ``OverrideStore``."""
        return tuple(dict(row) for row in reversed(self._rows) if row["agent"] == agent)[:limit]
