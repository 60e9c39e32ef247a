"""May these bytes serve? Asked when a version is registered, promoted and loaded, from rows that nobody can change.

A verdict and the approvals behind it are judged as of the moment at which the version was registered: an approval that
lapsed later takes nothing down, and one that was written later excuses nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from perennial.domain.words import GateAction
from perennial.errors import PromotionRefused
from perennial.registry.manifest import Manifest
from perennial.registry.rows import Approval, Decision, Judgement, Release

# who asks for trainings without being a person; Airflow's simple auth manager calls everybody Anonymous when all are admins
MACHINES = frozenset({"", "perennial", "anonymous"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """Who may approve an agent's candidates. ``approvers`` empty: whoever may answer Airflow's form.

    ``two_person``: two people stand behind each release. The person who asked for the training is one of them and
    cannot approve it; when a machine asked, two people must approve.
    """

    two_person: bool = False
    approvers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        given: object = self.approvers  # a fleet file is not type-checked when it is loaded
        if isinstance(given, str) or not all(name.strip() for name in self.approvers):
            raise ValueError("gates: approvers are a tuple of user names, none of them empty")
        if self.two_person and len(set(self.approvers)) == 1:
            raise ValueError("gates: the two-person rule needs two approvers at least, or none named")

    def needed(self, requested_by: str) -> int:
        """How many different people must approve.

        >>> Rule().needed(""), Rule(two_person=True).needed("ana"), Rule(two_person=True).needed("")
        (1, 1, 2)
        """
        return 2 if self.two_person and not requested_by else 1


def person(name: str, machines: Collection[str] = ()) -> str:
    """The name, or nothing when it is a machine's.

    >>> person("ana"), person("perennial"), person("machine", {"machine"})
    ('ana', '', '')
    """
    given = name.strip()
    return "" if given.casefold() in MACHINES or given in machines else given


def why_void(actor: str, rule: Rule, *, requested_by: str, attributable: bool) -> str:
    """Why an approval by this person does not count; empty when it does. A refusal always counts.

    >>> why_void("ana", Rule(two_person=True), requested_by="Ana", attributable=True)
    'ana asked for this training, and two people must stand behind a release'
    >>> why_void("ana", Rule(approvers=("bo",)), requested_by="", attributable=True)
    'ana is not one of the approvers (bo)'
    >>> why_void("ana", Rule(), requested_by="ana", attributable=True)
    ''
    """
    if not attributable or not person(actor):
        return "nobody can be held to this answer: Airflow lets everybody in as an administrator"
    if rule.approvers and actor not in rule.approvers:
        return f"{actor} is not one of the approvers ({', '.join(rule.approvers)})"
    if rule.two_person and _same(actor, requested_by):
        return f"{actor} asked for this training, and two people must stand behind a release"
    return ""


def counting(
    decisions: Sequence[Approval], *, content_digest: str, at: datetime, attempt: int | None = None
) -> tuple[Approval, ...]:
    """The live approvals of these bytes at a moment: one per person, after the last refusal, in the order of their ids.

    ``attempt`` None: of any attempt. A person's last word counts, so a lapsed one hides an earlier one.
    """
    last: dict[str, Approval] = {}
    for row in sorted(decisions, key=lambda row: row.id):
        if row.content_digest != content_digest or (attempt is not None and row.attempt != attempt):
            continue
        if row.created_at > at:
            continue
        if row.decision is Decision.REJECT:
            last.clear()
        elif not row.void:
            last[row.actor.casefold()] = row
    return tuple(sorted((row for row in last.values() if row.expires_at > at), key=lambda row: row.id))


def approving(
    decisions: Sequence[Approval], rule: Rule, *, content_digest: str, attempt: int, requested_by: str, at: datetime
) -> tuple[Approval, ...]:
    """The live approvals of one attempt that the rule accepts.

    Each is held against the rule once more, so one that was written past the operator, or under a laxer rule, does not count.
    """
    found = counting(decisions, content_digest=content_digest, at=at, attempt=attempt)
    return tuple(row for row in found if not why_void(row.actor, rule, requested_by=requested_by, attributable=True))


@dataclass(frozen=True, kw_only=True, slots=True)
class Permission:
    """What let a version be registered; signed with its manifest. ``approvals`` is empty when the gates passed it."""

    action: GateAction
    attempt: int
    content_digest: str
    two_person: bool = False
    requested_by: str = ""
    version: str = ""
    approvals: tuple[Approval, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON for the manifest: which rows of the ledger, by whom, about which bytes."""
        return {
            "action": self.action.value, "attempt": self.attempt, "content_digest": self.content_digest,
            "two_person": self.two_person, "requested_by": self.requested_by,
            "approvals": [_entry(row) for row in self.approvals],
        }  # fmt: skip

    def check_version(self, version: str) -> None:
        """Raise PromotionRefused when people approved these bytes as another version than the one they would get now."""
        if self.version and self.version != version:
            raise PromotionRefused(
                f"this was approved as {self.version} but would become {version}, since another version was released "
                "meanwhile; train again"
            )


def permit(
    judgement: Judgement | None, decisions: Sequence[Approval], rule: Rule, *, content_digest: str, attempt: int,
    requested_by: str, at: datetime,
) -> Permission:  # fmt: skip
    """What lets these bytes be registered now; PromotionRefused says what is missing.

    ``judgement`` is the gates' latest word on the job, ``at`` the present moment on the ledger's clock.
    """
    if judgement is None:
        raise PromotionRefused("no gate report is stored for this job; run its gate task")
    if judgement.content_digest != content_digest:
        raise PromotionRefused("the gate judged other bytes than these; run evaluate and gate again")
    if judgement.attempt != attempt:
        raise PromotionRefused("the gate judged another attempt of this job; run evaluate and gate again")
    action = GateAction(judgement.action)
    known = {"attempt": attempt, "content_digest": content_digest, "requested_by": requested_by}
    if action is GateAction.HOLD:
        raise PromotionRefused("the gate holds this candidate; read its report and add examples or change the gate")
    if action is GateAction.PASS:
        return Permission(action=action, **known)  # type: ignore[arg-type]
    found = approving(decisions, rule, content_digest=content_digest, attempt=attempt, requested_by=requested_by, at=at)
    versions = {row.version for row in found if row.version}
    needed = rule.needed(requested_by)
    if len(found) < needed or len(versions) > 1:
        who = "a person" if needed == 1 else f"{needed} different people"
        raise PromotionRefused(
            f"{who} must approve this candidate first, and {len(found)} did; answer its required action in Airflow"
        )
    return Permission(
        action=action, two_person=rule.two_person, version=next(iter(versions), ""), approvals=found,
        **known,  # type: ignore[arg-type]
    )  # fmt: skip


def check_permission(
    release: Release, manifest: Manifest, judgements: Sequence[Judgement], decisions: Sequence[Approval]
) -> None:
    """Raise PromotionRefused unless the ledger allowed this version at the moment at which it was registered.

    ``manifest`` is the one inside the verified bundle. It names the approvals that let it through; each must stand in
    the ledger with the same person and the same bytes. Manifests from before that was signed are judged by the ledger
    alone: the gates passed these bytes, or the last decision on them before the registration was a live approval.
    """
    name = f"{release.agent} {release.version}"
    signed = manifest.permission
    if str(release.job_id) != manifest.job_id:
        raise PromotionRefused(f"{name} was registered for another job than the one that made it; it is not served")
    mine = [
        row
        for row in judgements
        if row.content_digest == manifest.content_digest
        and row.created_at <= release.created_at
        and signed.get("attempt") in (None, row.attempt)
    ]
    if not mine:
        raise PromotionRefused(
            f"no gate report covers the bytes of {name}; it is not served: roll back, or train again"
        )
    action = mine[-1].action
    if action not in {GateAction.PASS, GateAction.APPROVE} or action != manifest.gate_action:
        raise PromotionRefused(f"the gates did not let {name} through; it is not served: roll back, or train again")
    if action == GateAction.PASS:
        return
    live = counting(
        decisions, content_digest=manifest.content_digest, at=release.created_at, attempt=signed.get("attempt")
    )
    rule, asked_by = Rule(two_person=bool(signed.get("two_person"))), str(signed.get("requested_by", ""))
    if signed:
        live = tuple(
            row
            for row in live
            if row.version in ("", release.version)
            and _named(row, signed)
            and not why_void(row.actor, rule, requested_by=asked_by, attributable=True)
        )
    if len(live) < rule.needed(asked_by):
        raise PromotionRefused(
            f"no approval that was live at its registration covers the bytes of {name}; it is not served: roll back, "
            f"or ask again (`perennial approvals {release.agent}`)"
        )


def _named(row: Approval, signed: Mapping[str, Any]) -> bool:
    return signed.get("content_digest") == row.content_digest and _entry(row) in signed.get("approvals", ())


def _entry(row: Approval) -> dict[str, Any]:
    # in UTC, since each session of the database may show times in a zone of its own
    return {"id": row.id, "actor": row.actor, "expires_at": row.expires_at.astimezone(UTC).isoformat()}


def _same(one: str, other: str) -> bool:
    return one.strip().casefold() == other.strip().casefold()
