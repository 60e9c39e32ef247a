"""The second look at redacted rows, in a training: what is still found in them, and what need not be looked at again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from perennial.domain.example import TrainingRow
from perennial.fleet.agent import Agent
from perennial.flows.ports import Ports
from perennial.guard.redactor import redactor_for


@dataclass(frozen=True, kw_only=True, slots=True)
class Scanned:
    """Rows in which personal data is still found, sure or not: ``outdated`` are those that another version of the redactor made."""

    leaking: frozenset[UUID]
    outdated: frozenset[UUID]
    looked_at: int  # the cache knew the others


def scan(ports: Ports, agent: Agent, rows: Sequence[TrainingRow]) -> Scanned:
    """Look at redacted rows with the present redactor. Words that a person let stand in a row count as nothing there.

    Nothing is changed but the cache. Raises GuardError when a detector fails on a text, GuardUnavailable when none can be built.
    """
    redactor = redactor_for(names=agent.redact_names)
    keys = {row.example_id: redactor.content_key(row.text) for row in rows}
    known = ports.scans.known(redactor.version, set(keys.values())) if ports.scans is not None else set()
    asked = [row for row in rows if keys[row.example_id] not in known]
    if not asked:
        return Scanned(leaking=frozenset(), outdated=frozenset(), looked_at=0)
    tasks = ports.redaction_tasks
    notes = tasks.notes([row.example_id for row in asked]) if tasks is not None else {}
    leaking: set[UUID] = set()
    clean: set[bytes] = set()
    for row in asked:
        note = notes.get(row.example_id)
        if redactor.scan(row.text, note.cleared if note else ()):
            leaking.add(row.example_id)
        elif note is None or not note.cleared:
            clean.add(keys[row.example_id])
    if ports.scans is not None and clean:
        ports.scans.remember(redactor.version, clean)
    outdated = {one for one in leaking if one in notes and notes[one].version != redactor.version}
    return Scanned(leaking=frozenset(leaking), outdated=frozenset(outdated), looked_at=len(asked))
