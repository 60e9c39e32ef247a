"""What became of every correction of an agent, and whether the model that serves answers it right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from perennial.domain.example import TrainingRow
from perennial.domain.words import CorrectionOutcome, State
from perennial.flows.champion import champion_folder, component
from perennial.flows.ports import Ports
from perennial.flows.rollout import load_component
from perennial.flows.train.measure import answers
from perennial.gates.scores import is_right
from perennial.ingest.results import StoredCorrection

_WAITING = frozenset({State.RAW, State.READY, State.CLAIMED, State.UNLABELLED})


@dataclass(frozen=True, kw_only=True, slots=True)
class Correction:
    """One correction without its text. ``version`` learned it first; ``why`` says what happened when none did.

    ``right_now``: whether the present champion answers it right; None when it was not asked.
    """

    example_id: UUID
    task: str
    made: datetime | None
    priority: int
    outcome: CorrectionOutcome
    version: str | None
    why: str
    right_now: bool | None

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            **asdict(self), "example_id": str(self.example_id), "made": self.made.isoformat() if self.made else None,
            "outcome": self.outcome.value,
        }  # fmt: skip


def outcome_of(stored: StoredCorrection) -> tuple[CorrectionOutcome, str]:
    """What became of a correction, and why when it was not learned.

    >>> row = TrainingRow(example_id=UUID(int=1), task="topic", text="", label="a", correction=True)
    >>> held = StoredCorrection(row=row, state=State.HELD, learned=None, version=None, refusals=2, reason="held: slices fell")
    >>> outcome, why = outcome_of(held)
    >>> outcome.value, why
    ('not learned', 'refused 2 times, waits for a person; held: slices fell')
    """
    times = f"refused {stored.refusals} time{'' if stored.refusals == 1 else 's'}"
    if stored.state is State.SUPERSEDED:
        return CorrectionOutcome.SUPERSEDED, "a newer correction of this input counts"
    if stored.learned is not None:
        return CorrectionOutcome.LEARNED, ""
    if stored.state is State.TRAINED:
        return CorrectionOutcome.NOT_LEARNED, f"{stored.version} was trained on it and answered it wrong"
    if stored.state in _WAITING:
        if not stored.refusals:
            return CorrectionOutcome.WAITING, ""
        return CorrectionOutcome.NOT_LEARNED, f"{times}, will be tried again; {stored.reason}"
    if stored.state is State.HELD and stored.refusals:
        return CorrectionOutcome.NOT_LEARNED, f"{times}, waits for a person; {stored.reason}"
    return CorrectionOutcome.NOT_LEARNED, f"{stored.state.value}: {stored.reason}"


def corrections(ports: Ports, agent: str, *, ask: bool = True, limit: int = 1000) -> list[Correction]:
    """The agent's corrections, newest first; with ``ask`` the present champion answers each of them now.

    Runs where a person asks (command line). Raises UntrustedBundle when the champion's files do not verify.
    """
    found = ports.buffer.corrections(agent, limit)
    right = _right_now(ports, agent, found) if ask else {}
    rows = []
    for stored in found:
        outcome, why = outcome_of(stored)
        rows.append(
            Correction(
                example_id=stored.row.example_id, task=stored.row.task, made=stored.row.created_at,
                priority=stored.row.priority, outcome=outcome, version=stored.learned, why=why,
                right_now=right.get(stored.row.example_id),
            )
        )  # fmt: skip
    return rows


def _right_now(ports: Ports, agent: str, found: Sequence[StoredCorrection]) -> Mapping[UUID, bool]:
    """The champion's answers to corrections that count and may be read, by id."""
    champion = champion_folder(ports, agent)
    if champion is None:
        return {}
    kinds = {task.name: task.kind for task in ports.fleet().agent(agent).tasks}
    asked: dict[str, list[TrainingRow]] = {}
    for stored in found:
        if stored.row.text and stored.state is not State.SUPERSEDED:
            asked.setdefault(stored.row.task, []).append(stored.row)
    right: dict[UUID, bool] = {}
    for name, rows in asked.items():
        folder = component(champion[1], name)
        if folder is None or name not in kinds:
            continue
        values = answers(load_component(ports, folder), rows, kinds[name])
        right |= {row.example_id: is_right(kinds[name], value) for row, value in zip(rows, values, strict=True)}
    return right
