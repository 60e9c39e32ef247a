"""What the detectors of personal data are not sure of, and a person's word on it: from the Quarantine page and the command line alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from perennial.domain.words import RedactionDecision
from perennial.flows.ports import Ports
from perennial.ingest.aside import NEWEST
from perennial.ingest.redaction_tasks import RedactionOrder, RedactionTask

_DONE = {
    RedactionDecision.CONFIRM: "is personal data: its stand-ins stay",
    RedactionDecision.RESTORE: "is no personal data: the next admission puts the words back",
    RedactionDecision.DROP: "is out of training; its rows stay in the books",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Answered:
    """How many of the answers counted, and a sentence for each."""

    done: int
    notes: tuple[str, ...]


def totals(ports: Ports) -> Mapping[str, int]:
    """Open tasks by agent; nothing where this deployment asks nobody."""
    return ports.redaction_tasks.totals() if ports.redaction_tasks is not None else {}


def open_tasks(
    ports: Ports, agent: str, *, words: bool, before: int = NEWEST, limit: int = 50
) -> list[RedactionTask]:  # fmt: skip
    """Open tasks of an agent, newest first. ``words`` True shows what may be personal data: for editors, and on request in a terminal."""
    if ports.redaction_tasks is None:
        return []
    return ports.redaction_tasks.tasks(agent, words=words, before=before, limit=limit)


def answer(
    ports: Ports, agent: str, decision: RedactionDecision, tasks: Sequence[tuple[int, int | None]], *, actor: str, why: str
) -> Answered:  # fmt: skip
    """Answer tasks, each by its number and the round that the person saw, one transaction each with its audit entry.

    Killed anywhere, the same call goes on: what is answered says so and stays. AsideRefused without a name or a reason. Runs in the
    api-server (page) and in the command line.
    """
    store, done, notes = ports.redaction_tasks, 0, []
    for number, seen in tasks:
        order = RedactionOrder(agent=agent, number=number, decision=decision, actor=actor, why=why, round=seen)
        told = "this deployment asks nobody" if store is None else store.decide(order)
        done += told is None
        notes.append(told or f"task {number} {_DONE[decision]}")
    return Answered(done=done, notes=tuple(notes))


def note_look(ports: Ports, agent: str, tasks: Sequence[RedactionTask], *, actor: str, why: str) -> None:
    """Say in the audit log that somebody had the words of these tasks shown outside the page, where no role is checked."""
    ports.audit.append(
        actor=actor, action="redaction_words_shown", agent=agent, subject="redaction tasks",
        detail={"why": why, "tasks": [one.number for one in tasks]},
    )  # fmt: skip
