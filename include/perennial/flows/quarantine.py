"""What stands aside and why, and a person's word on it: from the Quarantine page and the command line alike."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from perennial.domain import origin
from perennial.domain.words import JSON, AsideAction, State
from perennial.errors import AsideRefused, NotConfigured
from perennial.flows.ports import Ports
from perennial.guard.records import RecordReason
from perennial.ingest.admit import GUARD_AWAY, REDACTOR_CHANGED
from perennial.ingest.aside import (
    ASIDE,
    MOST_COUNTED,
    NEWEST,
    UNKNOWN_TASK,
    AsideGroup,
    AsideKey,
    AsideOrder,
    AsideRow,
    AsideStore,
    checked,
    code_of,
    refusal,
)
from perennial.selection.sent import alias_of

STEP = 500  # rows that one transaction moves
AT_ONCE = 20_000  # rows that one click moves; the rest is moved by the next one

_WHY = {
    RecordReason.TEXT_TYPE: "the input is not a text",
    RecordReason.EMPTY_TEXT: "the input is empty",
    RecordReason.TOO_LONG: "the input is longer than its task allows",
    RecordReason.CONTROL_CHARACTERS: "the input holds control characters",
    RecordReason.LABEL_TYPE: "the label is of another type than its task answers with",
    RecordReason.LABEL_FORM: "the label cannot be the name of a class",
    RecordReason.UNKNOWN_LABEL: "the label is not one of those that the agent declares",
    RecordReason.SCORE_OUT_OF_RANGE: "the score does not lie between 0 and 1",
    GUARD_AWAY: "the detector of personal data was away; the next admission looks again by itself",
    UNKNOWN_TASK: "the fleet does not know the task; rows come back by themselves once it does",
    "examiner_failed": "the check of the record failed on it; the log has the kind of error",
    "personal_data_left": "a direct identifier was still found in the redacted text",
    REDACTOR_CHANGED: "the redactor finds more than it did; the next admission redacts the row again by itself",
    origin.SOURCE_CAP: "beyond the share of its source, or of all young ones; a later batch takes it as room allows",
    origin.LABEL_CONFLICT: "a near duplicate from another source has another label",
    origin.NEAR_DUPLICATE_FLOOD: "one of too many near duplicates of one text with one label",
    origin.SELF_LABELLED_CAP: "one of too many labels that only repeat a model's own answer",
    origin.NEW_LABEL: "its label is new and still too rare; it comes back by itself once enough rows carry it",
    "held": "the gates refused two candidates that were trained on it",
    "rejected": "a person refused the candidate that was trained on it",
    "failed": "two trainings on it failed",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Pile:
    """One group as people see it. ``more``: there are more than ``rows``. An action that is not possible says why in ``*_refused``."""

    key: AsideKey
    rows: int
    more: bool
    why: str
    release_refused: str | None
    drop_refused: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class AgentPiles:
    """How much of one agent stands aside, by state; a number above ``MOST_COUNTED`` means at least so many."""

    agent: str
    rows: dict[State, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class SetAside:
    """One row as people see it. ``sender`` stands for the source (its name may be a person's).

    ``text`` None: no redacted text exists, or it may still hold personal data. ``cut``: the text goes on.
    """

    number: int
    example_id: UUID
    key: AsideKey
    reason: str
    priority: int
    correction: bool
    source: str
    sender: str
    refusals: int
    created_at: datetime
    text: str | None
    cut: bool
    label: JSON


@dataclass(frozen=True, kw_only=True, slots=True)
class Settled:
    """What an order came to: rows moved, holdout rows that followed, whether more of the group wait, and one sentence."""

    rows: int
    holdout: int
    more: bool
    note: str


def aside_of(ports: Ports) -> AsideStore:
    """The store of what stands aside; NotConfigured where this deployment has none."""
    if ports.aside is None:
        raise NotConfigured("PERENNIAL_DATABASE_URL", "what stands aside is read from the database of the buffer")
    return ports.aside


def meaning(state: State, code: str) -> str:
    """One sentence that says why rows stand aside.

    >>> meaning(State.HELD, "source_cap")
    'beyond the share of its source, or of all young ones; a later batch takes it as room allows'
    >>> meaning(State.UNLABELLED, "")
    'nobody has said the right answer yet'
    """
    if state is State.UNLABELLED:
        return "nobody has said the right answer yet"
    return _WHY.get(code, "no explanation is known for this reason")


def overview(ports: Ports) -> list[AgentPiles]:
    """Every agent that has rows standing aside, with counts by state."""
    found: dict[str, dict[State, int]] = {}
    for total in aside_of(ports).totals():
        found.setdefault(total.agent, {})[total.state] = total.rows
    return [AgentPiles(agent=agent, rows=found[agent]) for agent in sorted(found)]


def piles(ports: Ports, agent: str) -> list[Pile]:
    """The agent's groups with their explanation and what may be done with them; the largest of each state first."""
    groups = sorted(aside_of(ports).groups(agent), key=lambda one: (ASIDE.index(one.key.state), -one.rows))
    return [_pile(one) for one in groups]


def pile(ports: Ports, agent: str, key: AsideKey) -> Pile | None:
    """One group of the agent, also where ``piles`` leaves it out; None when no row is in it."""
    found = aside_of(ports).group(agent, key)
    return None if found is None else _pile(found)


def _pile(one: AsideGroup) -> Pile:
    return Pile(
        key=one.key, rows=min(one.rows, MOST_COUNTED), more=one.rows > MOST_COUNTED,
        why=meaning(one.key.state, one.key.code), release_refused=refusal(AsideAction.RELEASE, one.key),
        drop_refused=refusal(AsideAction.DROP, one.key),
    )  # fmt: skip


def set_aside(
    ports: Ports, agent: str, *, key: AsideKey | None = None, before: int = NEWEST, limit: int = 50
) -> list[SetAside]:
    """Rows newest first, below number ``before``: of one group or of all of the agent."""
    return [_shown(agent, row) for row in aside_of(ports).rows(agent, key=key, before=before, limit=limit)]


def _shown(agent: str, row: AsideRow) -> SetAside:
    return SetAside(
        number=row.number, example_id=row.example_id, key=row.key, reason=row.reason, priority=row.priority,
        correction=row.correction, source=row.source, sender=alias_of(agent, row.source_id), refusals=row.refusals,
        created_at=row.created_at, text=row.text, cut=row.text is not None and (row.length or 0) > len(row.text),
        label=row.label,
    )  # fmt: skip


def settle_row(
    ports: Ports, agent: str, example_id: UUID, action: AsideAction, *, actor: str, why: str, key: AsideKey | None = None
) -> Settled:  # fmt: skip
    """Release or drop one row: where the person saw it (``key``), or where it stands now.

    A row that does not stand aside any more is left alone, and the note says where it is. AsideRefused when the agent has no such
    row, and as ``settle``.
    """
    row = ports.buffer.example(example_id)
    if row is None or row.agent != agent:
        raise AsideRefused(
            f"{agent} has no example {example_id}; `perennial quarantine {agent}` lists what stands aside"
        )
    if row.state not in ASIDE:
        return Settled(rows=0, holdout=0, more=False, note=f"nothing changed: {_gone(row.state, row.reason)}")
    seen = key or AsideKey(state=row.state, task=row.task, code=code_of(row.reason))
    return settle(ports, AsideOrder(agent=agent, action=action, key=seen, actor=actor, why=why, ids=(example_id,)))


def settle(ports: Ports, order: AsideOrder, *, at_once: int = AT_ONCE) -> Settled:
    """Carry an order out, ``STEP`` rows per transaction, each with its audit entry; at most ``at_once`` rows.

    Killed anywhere, the same order goes on with what is left; done already, it changes nothing and says so. AsideRefused when
    name or reason is missing or the group does not allow it. Runs in the api-server (page) and in the command line.
    """
    checked(order)
    store = aside_of(ports)
    rows = holdout = 0
    while rows < at_once:
        moved = store.settle(order, limit=min(STEP, at_once - rows))
        rows, holdout = rows + len(moved.ids), holdout + moved.holdout
        if not moved.ids or order.ids is not None:
            break
    more = (
        order.ids is None
        and rows >= at_once
        and bool(store.rows(order.agent, key=order.key, before=order.until, limit=1))
    )
    return Settled(rows=rows, holdout=holdout, more=more, note=_told(ports, order, rows, holdout, more))


def _told(ports: Ports, order: AsideOrder, rows: int, holdout: int, more: bool) -> str:
    releases = order.action is AsideAction.RELEASE
    if rows or holdout:
        verb = "released" if releases else "dropped"
        following = (
            "" if not releases
            else "; the next training may claim them" if order.key.state is State.HELD
            else "; they go through admission again"
        )  # fmt: skip
        along = f", and {holdout} holdout rows of refused batches with them" if holdout else ""
        rest = "; more of them wait: send it again" if more else ""
        return f"{rows} {'row' if rows == 1 else 'rows'} {verb}{along}{following}{rest}"
    if order.ids is not None and len(order.ids) == 1:
        row = ports.buffer.example(order.ids[0])
        return (
            "nothing changed: there is no such row"
            if row is None
            else f"nothing changed: {_gone(row.state, row.reason)}"
        )
    return "nothing changed: no such row stands aside for this reason any more"


def _gone(state: State, reason: str) -> str:
    if state is State.READY and reason == origin.RELEASED:
        return "the row was released already"
    if state is State.EVICTED and reason.startswith("dropped by "):
        return "the row was dropped already"
    return f"the row is {state.value} by now; look again"
