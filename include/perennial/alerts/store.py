"""Alerts as they stand: raised once per cause, told at least once, closed when the cause is gone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
