"""Alerts as they stand: raised once per cause, told at least once, closed when the cause is gone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Protocol

from perennial.alerts.kinds import Alert, Cause, Kind
from perennial.storage.database import Database
from perennial.storage.queries import load

MOST = 100  # messages of one look; the rest follows with the next


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """How a slow check ended last, and how many seconds ago."""

    name: str
    ok: bool
    text: str
    age: float


class AlertStore(Protocol):
    """Where alerts are kept; both forms meet ``tests/integration/alerts/test_store.py``."""

    def keep(self, causes: Sequence[Cause], *, blind: Sequence[str] = ()) -> None:
        """Make the open alerts those of ``causes``: a new cause is raised, one that is gone is closed.

        ``blind`` names beginnings of ``kind:key:`` that could not be looked at: those alerts stay as they are. Safe to repeat and
        to run twice at once.
        """
        ...

    def undelivered(self, limit: int = MOST) -> tuple[Alert, ...]:
        """What nobody was told yet, oldest first; also what is over meanwhile."""
        ...

    def delivered(self, alert_id: int) -> None:
        """Note that people were told."""
        ...

    def recent(self, *, over: bool = False, limit: int = 50) -> tuple[Alert, ...]:
        """Open alerts, newest first; with ``over`` closed ones after them."""
        ...

    def note_check(self, name: str, *, ok: bool, text: str = "") -> None:
        """Keep how a slow check ended."""
        ...

    def check(self, name: str) -> Check | None:
        """How it ended last; None when it was never made."""
        ...


class PostgresAlerts:
    """Over the app role. Raises StoreUnavailable when PostgreSQL is away."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._sql = load("perennial.alerts")

    def keep(self, causes: Sequence[Cause], *, blind: Sequence[str] = ()) -> None:
        """See ``AlertStore.keep``."""
        standing = [f"{cause.kind.value}:{cause.key}" for cause in causes]
        with self._database.connection() as connection:
            connection.execute(self._sql["clear"], {"standing": standing, "blind": list(blind)})
            # in one order for all writers, so that two looks at once wait for each other and never in a circle
            for cause in sorted(causes, key=lambda one: (one.kind, one.key)):
                values = {"kind": cause.kind.value, "agent": cause.agent, "cause": cause.key, "text": cause.text}
                connection.execute(self._sql["raise"], values)

    def undelivered(self, limit: int = MOST) -> tuple[Alert, ...]:
        """See ``AlertStore.undelivered``."""
        return self._alerts("undelivered", {"limit": limit})

    def delivered(self, alert_id: int) -> None:
        """See ``AlertStore.delivered``."""
        with self._database.connection() as connection:
            connection.execute(self._sql["delivered"], {"id": alert_id})

    def recent(self, *, over: bool = False, limit: int = 50) -> tuple[Alert, ...]:
        """See ``AlertStore.recent``."""
        return self._alerts("recent", {"all": over, "limit": limit})

    def note_check(self, name: str, *, ok: bool, text: str = "") -> None:
        """See ``AlertStore.note_check``."""
        with self._database.connection() as connection:
            connection.execute(self._sql["note_check"], {"name": name, "ok": ok, "text": text})

    def check(self, name: str) -> Check | None:
        """See ``AlertStore.check``."""
        with self._database.connection() as connection:
            row = connection.execute(self._sql["check"], {"name": name}).fetchone()
        return Check(**row) if row else None

    def _alerts(self, statement: str, values: dict[str, Any]) -> tuple[Alert, ...]:
        with self._database.connection() as connection:
            rows = connection.execute(self._sql[statement], values).fetchall()
        return tuple(Alert(**{**row, "kind": Kind(row["kind"])}) for row in rows)


class MemoryAlerts:
    """The twin in memory, for tests and trials without a database."""

    def __init__(self, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._clock = clock
        self._alerts: list[Alert] = []
        self._checks: dict[str, tuple[bool, str, datetime]] = {}

    def keep(self, causes: Sequence[Cause], *, blind: Sequence[str] = ()) -> None:
        """See ``AlertStore.keep``."""
        standing = {(cause.kind, cause.key): cause for cause in causes}
        for number, alert in enumerate(self._alerts):
            if alert.cleared_at is not None:
                continue
            cause = standing.pop((alert.kind, alert.cause), None)
            if cause is not None:
                self._alerts[number] = replace(alert, text=cause.text)
            elif not f"{alert.kind.value}:{alert.cause}:".startswith(tuple(blind)):
                self._alerts[number] = replace(alert, cleared_at=self._clock())
        for cause in sorted(standing.values(), key=lambda one: (one.kind, one.key)):
            made = Alert(
                id=len(self._alerts) + 1, kind=cause.kind, agent=cause.agent, cause=cause.key, text=cause.text,
                raised_at=self._clock(),
            )  # fmt: skip
            self._alerts.append(made)

    def undelivered(self, limit: int = MOST) -> tuple[Alert, ...]:
        """See ``AlertStore.undelivered``."""
        return tuple(alert for alert in self._alerts if alert.delivered_at is None)[:limit]

    def delivered(self, alert_id: int) -> None:
        """See ``AlertStore.delivered``."""
        alert = self._alerts[alert_id - 1]
        self._alerts[alert_id - 1] = replace(alert, delivered_at=alert.delivered_at or self._clock())

    def recent(self, *, over: bool = False, limit: int = 50) -> tuple[Alert, ...]:
        """See ``AlertStore.recent``."""
        newest = self._alerts[::-1]
        still = [alert for alert in newest if alert.cleared_at is None]
        return tuple(still + [alert for alert in newest if over and alert.cleared_at is not None])[:limit]

    def note_check(self, name: str, *, ok: bool, text: str = "") -> None:
        """See ``AlertStore.note_check``."""
        self._checks[name] = (ok, text, self._clock())

    def check(self, name: str) -> Check | None:
        """See ``AlertStore.check``."""
        if name not in self._checks:
            return None
        ok, text, at = self._checks[name]
        return Check(name=name, ok=ok, text=text, age=(self._clock() - at).total_seconds())
