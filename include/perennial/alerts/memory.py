"""Alerts in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from perennial.alerts.kinds import Alert, Cause
from perennial.alerts.store import MOST, Check


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
