"""Closed words: states, reasons, modes and actions, exactly as the database stores them."""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Any, TypeAlias

JSON: TypeAlias = Any  # what json.dumps takes; kept open, since outputs of agents are any JSON


class State(StrEnum):
    """Where an example stands in the buffer. ``raw -> ready -> claimed -> trained``, the rest stands aside."""

    RAW = "raw"
    READY = "ready"
    CLAIMED = "claimed"
    TRAINED = "trained"
    UNLABELLED = "unlabelled"
    QUARANTINED = "quarantined"
    HELD = "held"
    SUPERSEDED = "superseded"
    EVICTED = "evicted"
    PURGED = "purged"


class AsideAction(StrEnum):
    """What a person does with rows that stand aside."""

    RELEASE = "release"  # held rows may train again; quarantined ones go through admission again
    DROP = "drop"  # out of training for good; they stay in the books as evicted


class RedactionState(StrEnum):
    """Where the question to a person stands whether a find is personal data."""

    OPEN = "open"
    CONFIRMED = "confirmed"  # it is; the stand-ins stay
    RESTORED = "restored"  # it is not; the words come back
    DROPPED = "dropped"
    CLOSED = "closed"  # nobody decided: too old, purged, or no detector is unsure any more; the stand-ins stay


class RedactionDecision(StrEnum):
    """What a person says about finds that a detector is not sure of."""

    CONFIRM = "confirm"
    RESTORE = "restore"
    DROP = "drop"  # out of training for good, with every row of this text

    @property
    def state(self) -> RedactionState:
        """What it makes of the task."""
        return _DECIDED[self]


_DECIDED = {
    RedactionDecision.CONFIRM: RedactionState.CONFIRMED,
    RedactionDecision.RESTORE: RedactionState.RESTORED,
    RedactionDecision.DROP: RedactionState.DROPPED,
}


class Priority(IntEnum):
    """How urgent a correction is; 2 and above start a training at once."""

    LOW = 0
    MEDIUM = 1
    HIGH = 2
    CRITICAL = 3


class CorrectionOutcome(StrEnum):
    """What became of a correction."""

    LEARNED = "learned"
    NOT_LEARNED = "not learned"
    WAITING = "waiting"
    SUPERSEDED = "superseded"  # a newer correction of the same input counts


class Source(StrEnum):
    """How an example came in."""

    EXAMPLE = "example"
    SAMPLE = "sample"  # a right answer, kept so that the holdout is a fair sample of production
    FEEDBACK = "feedback"
    CORRECTION = "correction"
    IMPORT = "import"
    INBOX = "inbox"
    GATEWAY = "gateway"


class Reason(StrEnum):
    """Why a training started."""

    THRESHOLD = "threshold"
    CORRECTION = "correction"
    DRIFT = "drift"
    REQUEST = "request"
    SCHEDULE = "schedule"


class Mode(StrEnum):
    """How deep a training goes: heads only (online), encoder too (batch), or chosen by the reason (auto)."""

    AUTO = "auto"
    ONLINE = "online"
    BATCH = "batch"


class JobStatus(StrEnum):
    """Life of a training job."""

    PENDING = "pending"
    VALIDATING = "validating"
    TRAINING = "training"
    EVALUATING = "evaluating"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class TaskKind(StrEnum):
    """What a task answers with: one of several labels, or a number between 0 and 1."""

    CLASSIFICATION = "classification"
    SCORE = "score"


class Arm(StrEnum):
    """Which model answered a request."""

    CHAMPION = "champion"
    CANDIDATE = "candidate"
    SHADOW = "shadow"


class GateAction(StrEnum):
    """What a gate decides. Everything that is not a pass keeps the candidate from serving."""

    PASS = "pass"
    HOLD = "hold"
    APPROVE = "approve"  # passes the numbers, but a person must agree


class RolloutAction(StrEnum):
    """What a look at live traffic decides."""

    PROMOTE = "promote"
    HOLD = "hold"
    ROLLBACK = "rollback"
    ASK = "ask"  # traffic does not tell in time: a person decides


class TooLittleTraffic(StrEnum):
    """What happens when a step's patience ends and too little traffic came to tell; no data alone never passes."""

    REVERT = "revert"
    ASK = "ask"  # stays at its share until a person decides
    OFFLINE = "offline"  # gates passed and the shadow replay agreed: promoted on that, else reverted


class Parked(StrEnum):
    """Why no run carries an open rollout on; ``rollout_watch`` looks after it meanwhile."""

    ASK = "ask"  # until a person decides
    FREEZE = "freeze"  # until the freeze window ends


class RolloutDecision(StrEnum):
    """What a person may order of an open rollout."""

    NONE = "none"
    ABORT = "abort"
    PROMOTE = "promote"


class ReportKind(StrEnum):
    """What a user says is wrong with an answer."""

    WRONG = "wrong"
    HARMFUL = "harmful"
    UNUSABLE = "unusable"
    SLOW = "slow"
    OTHER = "other"


class ReportResult(StrEnum):
    """What became of one report."""

    ADDED = "added"
    DUPLICATE = "duplicate"
    UNKNOWN = "unknown"  # no such answer or version of this agent


class RolloutState(StrEnum):
    """Where a candidate stands on its way to production."""

    PENDING = "pending"
    SHADOW = "shadow"
    CANARY = "canary"
    BAKING = "baking"  # serves everything, still watched
    DONE = "done"
    REVERTED = "reverted"
    SUPERSEDED = "superseded"
