"""Training jobs: what was asked for, and the claim that a running attempt holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from perennial.domain.words import Mode, Reason


@dataclass(frozen=True, kw_only=True, slots=True)
class JobRequest:
    """A wish for one training of one agent, from any trigger.

    ``run_id`` is the id of the Airflow run that carries it out; ``job_id`` is derived from it when not given,
    so a repeated task finds the same job.
    """

    agent: str
    run_id: str
    reason: Reason = Reason.REQUEST
    mode: Mode = Mode.AUTO
    force: bool = False
    requested_by: str = ""
    why: str = ""  # what the person who asks says; a batch training on request is judged by it
    overrides: dict[str, Any] = field(default_factory=dict)
    job_id: UUID | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchRef:
    """The claim of one attempt of one job: small enough for XCom, and the fence of every later write."""

    agent: str
    job_id: UUID
    attempt: int
    mode: Mode
    reason: Reason
    count: int

    @property
    def urgent(self) -> bool:
        """Whether somebody corrected the model and waits: such a training takes the fast lane.

        >>> BatchRef(agent="scout", job_id=UUID(int=1), attempt=1, mode=Mode.ONLINE, reason=Reason.CORRECTION, count=1).urgent
        True
        """
        return self.reason is Reason.CORRECTION and self.mode is Mode.ONLINE

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON for XCom."""
        return {
            "agent": self.agent, "job_id": str(self.job_id), "attempt": self.attempt,
            "mode": self.mode.value, "reason": self.reason.value, "count": self.count,
        }  # fmt: skip

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> BatchRef:
        """Inverse of ``as_dict``."""
        return cls(
            agent=value["agent"], job_id=UUID(value["job_id"]), attempt=int(value["attempt"]),
            mode=Mode(value["mode"]), reason=Reason(value["reason"]), count=int(value["count"]),
        )  # fmt: skip
