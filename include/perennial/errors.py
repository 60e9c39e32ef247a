"""Every error that Perennial raises on purpose.

PerennialError
├── InvalidExample          one record is unusable; names the field and the remedy
├── UnknownAgent            no fleet file declares this agent
├── FleetError              a fleet file is broken; names file and line
├── StoreError              PostgreSQL refused or is away
│   ├── StoreUnavailable    nothing was written; try again
│   ├── StaleClaim          the job lost its lease; this attempt must stop
│   └── AsideRefused        rows that stand aside cannot be released or dropped like this
├── TrainingError
│   ├── EmptyBatch          there is nothing to train on
│   ├── UnknownLabel        a row has a label that the model does not know
│   └── ScriptFailed        the user's own script failed, hung or answered something else
├── GuardError
│   ├── GuardUnavailable    a check could not run; the rows wait in quarantine
│   └── ValidationFailed    the batch must not be trained
├── RegistryError
│   ├── VersionExists       a published version is never changed
│   ├── IncompleteManifest  a required field of the release record is missing
│   └── FilesRemoved        retention took the version's files; says when and why
├── StepFailed              a step met an error of a library; says kind and place, never its text
├── AuditBroken             the audit's chain does not hold; names the place
├── UntrustedBundle         signature, digest or ledger row do not agree; not loaded
├── PromotionRefused        no live verdict or approval covers this bundle
├── RolloutError            a rollout was asked for something that it cannot do
├── WatchIncomplete         the watch could not look after some rollouts; names agents and kinds of errors
├── SourceError             an event source is unreadable; names the place
├── AccessRefused           nobody comes in with this token or this form; says what to do
├── AlertUndelivered        an alert did not get out; it is told again
├── StackError              a part of the embedded stack does not start or stop
│   ├── BackupBroken        a backup is not what its manifest says, or a restore did not bring everything back
│   ├── PortTaken           another process listens there; names setting and remedy
│   └── PromiseBroken       the demo ended without showing what it promises
└── NotConfigured           a setting is missing; names it
"""

from __future__ import annotations

import re

_NAME = re.compile(r"[a-z][a-z0-9_]{0,47}")
_DIGITS = re.compile(r"\d")


class PerennialError(Exception):
    """Root of all errors that Perennial raises on purpose; the message says what to do next."""


class InvalidExample(PerennialError):
    """One record cannot be used; ``field`` names the culprit and the message names the remedy.

    The message never holds the value: it may be personal data.

    >>> str(InvalidExample("uncertainty_score", "is not between 0 and 1", "send 1 - confidence"))
    'uncertainty_score is not between 0 and 1; send 1 - confidence'
    """

    def __init__(self, field: str, problem: str, remedy: str) -> None:
        super().__init__(f"{field} {problem}; {remedy}")
        self.field = field
        self.problem = problem
        self.remedy = remedy


class UnknownAgent(InvalidExample):
    """No fleet file declares the agent that a record names."""

    def __init__(self, agent: str, known: list[str]) -> None:
        names = ", ".join(sorted(known)) or "none"
        # what cannot be the name of an agent may be anything, a person's address too, and is not repeated
        told = repr(agent) if _NAME.fullmatch(agent) and len(_DIGITS.findall(agent)) < 6 else "this name"
        super().__init__("agent_name", f"{told} is not in the fleet ({names})", "add include/fleet/<name>.py")
        self.agent = agent


class FleetError(PerennialError):
    """A fleet file is broken; the message leads with file and line."""


class StoreError(PerennialError):
    """PostgreSQL refused a statement or is away."""


class StoreUnavailable(StoreError):
    """PostgreSQL could not be reached; nothing of this call was written, so it is safe to repeat."""


class StaleClaim(StoreError):
    """The job no longer owns its rows (another attempt took over); this attempt must stop and write nothing."""


class AsideRefused(StoreError):
    """Rows that stand aside were asked for something that their reason does not allow, or without a name or a reason."""


class TrainingError(PerennialError):
    """A trainer could not make a model."""


class EmptyBatch(TrainingError):
    """There is nothing to train on; wait for examples or lower the threshold."""


class UnknownLabel(TrainingError):
    """A row carries a label that the model does not know and may not learn."""


class ScriptFailed(TrainingError):
    """The user's own script failed, hung, or answered something that is no answer; the message never quotes its output."""


class GuardError(PerennialError):
    """A check on data failed or could not run."""


class GuardUnavailable(GuardError):
    """A check could not run; the rows it should have seen wait in quarantine."""


class ValidationFailed(GuardError):
    """The batch broke its expectations and must not be trained."""


class RegistryError(PerennialError):
    """The model registry refused."""


class VersionExists(RegistryError):
    """A published version is never changed; make a new one."""


class IncompleteManifest(RegistryError):
    """A release record lacks a field that promotion needs."""


class FilesRemoved(RegistryError):
    """Retention took the files of this version; its record stays, and the message says when and why they went."""


class StepFailed(PerennialError):
    """A step met an error that is not ours, whose text may quote a row: only its kind and its place are told."""

    def __init__(self, step: str, place: str) -> None:
        super().__init__(f"{step} failed: {place}; the text of the error is left out, since it may quote a row")
        self.place = place


class AuditBroken(PerennialError):
    """The chain of audit rows, or the file of its heads, is not what was written; the message names the place."""


class UntrustedBundle(PerennialError):
    """Signature, digest or ledger row of a bundle do not agree, so it is not loaded."""


class PromotionRefused(PerennialError):
    """No live gate verdict or approval covers exactly this bundle."""


class RolloutError(PerennialError):
    """A rollout was asked for something that its state does not allow."""


class WatchIncomplete(PerennialError):
    """The watch looked at every rollout and could not look after some; names agents and kinds of errors, whose texts are in the log."""

    def __init__(self, failed: list[str]) -> None:
        told = ", ".join(dict.fromkeys(failed))
        super().__init__(f"not all rollouts could be looked after: {told}; the others were; the task's log says more")


class SourceError(PerennialError):
    """An event source is unreadable; the message names the place."""


class AccessRefused(PerennialError):
    """Nobody comes in with this token or this form: an HTTP ``status`` (401, 403 or 503) and one sentence for the caller."""

    def __init__(self, status: int, told: str) -> None:
        super().__init__(told)
        self.status = status


class AlertUndelivered(PerennialError):
    """An alert did not get out; it stays in the list and is told again."""


class StackError(PerennialError):
    """A part of the embedded stack does not start or stop."""


class BackupBroken(StackError):
    """A backup is not what its manifest says, or what was restored is not what was backed up; the message names the place."""


class PortTaken(StackError):
    """Another process listens on a port that a part needs."""

    def __init__(self, port: int, part: str, setting: str) -> None:
        super().__init__(
            f"port {port} for {part} is taken by another process; free it or set {setting} to another port"
        )
        self.port = port
        self.part = part


class PromiseBroken(StackError):
    """The demo ended, but something that it promises to show did not happen; the message names it."""


class NotConfigured(PerennialError):
    """A setting that this action needs is missing."""

    def __init__(self, setting: str, remedy: str) -> None:
        super().__init__(f"{setting} is not set; {remedy}")
        self.setting = setting
