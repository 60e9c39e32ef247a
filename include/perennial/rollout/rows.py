"""The values that the rollout tables hold, as PostgreSQL and the twin in memory both give them out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from perennial.domain.words import JSON, Arm, Parked, ReportKind, RolloutState
from perennial.registry.rows import LOST
from perennial.rollout.machine import ENDED, OPEN, Plan, RolloutStatus


@dataclass(frozen=True, kw_only=True, slots=True)
class ServingRow:
    """What the gateways should do for one agent. ``epoch`` grows with every change; ``weight`` is the candidate's
    share."""

    agent: str
    champion: str | None = None
    previous: str | None = None
    candidate: str | None = None
    weight: float = 0.0
    epoch: int = 0
    rollout_id: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ServingMove:
    """What a change of serving left behind: from ``changed_at`` on, the candidate had this share of the keys."""

    agent: str
    champion: str | None
    candidate: str | None
    weight: float
    epoch: int
    changed_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class ErrorRate:
    """How often one task of a version was wrong in production; ``rate`` in [0, 1] (mean absolute error of a score)."""

    task: str
    judged: int  # outcomes that came in
    rate: float


@dataclass(frozen=True, kw_only=True, slots=True)
class RolloutRow:
    """One rollout of one version; times are UTC on the store's clock.

    ``previous`` is the champion when it began and, once it serves everything, the champion that it replaced. ``step_at`` is when the
    present state or step began; a bake that was cut short and goes on keeps ``full_at``, so that its evidence stays.
    """

    id: int
    agent: str
    version: str
    previous: str | None
    plan: Plan
    state: RolloutState
    step: int
    weight: float
    run_id: str
    reason: str
    started_at: datetime
    step_at: datetime
    full_at: datetime | None = None
    ended_at: datetime | None = None
    parked: Parked | None = None  # no run carries it on: a person is asked, or a freeze window is open

    @property
    def lost(self) -> bool:
        """Whether it ended because its run was gone before any traffic: nothing was judged, and the release still waits."""
        return self.state is RolloutState.REVERTED and self.full_at is None and self.reason.startswith(LOST)

    @property
    def status(self) -> RolloutStatus:
        """Where it stands, for the state machine."""
        return RolloutStatus(
            state=self.state, step=self.step, weight=self.weight, step_at=self.step_at, reason=self.reason
        )

    def moved(self, status: RolloutStatus) -> RolloutRow:
        """This row after a move of the state machine; the moments of full traffic and of the end are kept with it."""
        full_at = self.full_at or (status.step_at if status.state is RolloutState.BAKING else None)
        parked = self.parked if status.state in OPEN else None
        return replace(
            self, state=status.state, step=status.step, weight=status.weight, step_at=status.step_at,
            reason=status.reason, full_at=full_at, ended_at=status.step_at if status.state in ENDED else None,
            parked=parked,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class GatewayRow:
    """What one gateway process said that it has loaded, ``age`` seconds ago."""

    instance: str
    agent: str
    champion: str | None
    previous: str | None
    candidate: str | None
    weight: float
    epoch: int
    error: str | None = None
    age: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class RecentInput:
    """A recorded request, for shadow replay and late outcomes; ``task`` is the task's own name, never an alias."""

    task: str
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Answered:
    """One answer of a gateway as it is recorded. ``error`` names the kind of failure when there was no answer."""

    prediction_id: UUID
    agent: str
    task: str
    version: str
    arm: Arm
    input_digest: bytes
    output: JSON
    confidence: float | None
    latency_ms: float
    error: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What turned out to be right for one answer; ``correct`` is 1 or 0, for scores 1 - |error|."""

    prediction_id: UUID
    agent: str
    task: str
    version: str
    arm: Arm
    actual: JSON
    correct: float


@dataclass(frozen=True, kw_only=True, slots=True)
class JudgedInput:
    """A recorded request whose truth came in, and how right the version that served was (1 or 0, or 1 - |error|)."""

    task: str
    text: str
    actual: JSON
    correct: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """One user's complaint about an answer, or about a version as a whole. Holds no text; ``reporter`` is a keyed digest.

    A caller names one of ``prediction_id`` and ``version``; who remembers an answer that is not written down yet adds its version.
    The same ``report_id`` counts once.
    """

    report_id: UUID
    agent: str
    kind: ReportKind
    reporter: bytes
    prediction_id: UUID | None = None
    version: str | None = None
