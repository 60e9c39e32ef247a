"""What an alert can be about, and where its runbook lies."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any


class Kind(StrEnum):
    """What went wrong. Each has a runbook of the same name in ``docs/runbooks``."""

    FAILURE = "failure"  # a training or another run of our DAGs failed
    HOLD = "hold"  # the gates held a candidate
    ROLLBACK = "rollback"  # a version was taken out of traffic
    BREAKER = "breaker"  # an agent stopped training by itself
    BUDGET = "budget"  # an agent's training seconds are spent
    QUIET = "quiet"  # nothing came in for hours
    LEASE = "lease"  # a training's worker stopped renewing its claim
    AUDIT = "audit"  # the record of decisions does not hold


@dataclass(frozen=True, kw_only=True, slots=True)
class Cause:
    """Something that is wrong now. ``key`` stays the same for as long as it is the same thing; ``text`` is one line for people."""

    kind: Kind
    key: str
    text: str
    agent: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Alert:
    """What was raised for a cause, and how far it is: told to people, and over."""

    id: int
    kind: Kind
    agent: str
    cause: str
    text: str
    raised_at: datetime
    delivered_at: datetime | None = None
    cleared_at: datetime | None = None

    @property
    def runbook(self) -> str:
        """Path of its runbook in the project."""
        return f"docs/runbooks/{self.kind.value}.md"

    def told(self) -> str:
        """The message: one line, and where to read on.

        >>> from datetime import UTC
        >>> at = datetime(2026, 11, 21, 14, 2, tzinfo=UTC)
        >>> Alert(id=1, kind=Kind.LEASE, agent="scout", cause="scout", text="scout: job 7 is stuck", raised_at=at).told()
        'Perennial lease: scout: job 7 is stuck. Since 2026-11-21 14:02 UTC. What to do: docs/runbooks/lease.md'
        """
        over = f", over at {self.cleared_at:%H:%M}" if self.cleared_at else ""
        since = f"Since {self.raised_at:%Y-%m-%d %H:%M} UTC{over}."
        return f"Perennial {self.kind.value}: {self.text.rstrip('.')}. {since} What to do: {self.runbook}"

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON, for webhooks and ``--json``."""
        return {
            "id": self.id, "kind": self.kind.value, "agent": self.agent, "text": self.text, "runbook": self.runbook,
            "raised_at": self.raised_at.isoformat(),
            "delivered_at": self.delivered_at.isoformat() if self.delivered_at else None,
            "cleared_at": self.cleared_at.isoformat() if self.cleared_at else None,
        }  # fmt: skip
