"""Sound chains of made-up decisions, as values that a test may tamper with."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from perennial.audit.chain import Seal, content_digest, entry, make_seal
from perennial.audit.verification import Chain, Report, verify

BEGAN = datetime(2026, 11, 21, 9, 0, tzinfo=UTC)
COLUMNS = ("at", "actor", "action", "agent", "subject", "detail")


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One audit row, as the database holds it."""

    id: int
    at: datetime
    actor: str
    action: str
    agent: str
    subject: str
    detail: str

    @property
    def entry(self) -> bytes:
        return entry(self.id, self.at, content_digest(self.actor, self.action, self.agent, self.subject, self.detail))


@dataclass(kw_only=True)
class Record:
    """Rows by id, the chain over them, what waits, and the heads that were kept outside."""

    rows: dict[int, bytes] = field(default_factory=dict)
    batches: list[tuple[Seal, bytes]] = field(default_factory=list)
    waiting: dict[int, bytes] = field(default_factory=dict)
    heads: list[tuple[int, bytes]] = field(default_factory=list)

    def copy(self) -> Record:
        return Record(
            rows=dict(self.rows), batches=list(self.batches), waiting=dict(self.waiting), heads=list(self.heads)
        )

    def verify(self) -> Report:
        rows = iter([self.rows[row_id] for row_id in sorted(self.rows)])
        waiting = iter([self.waiting[row_id] for row_id in sorted(self.waiting)])
        return verify(Chain(seals=iter(self.batches), rows=rows, waiting=waiting), self.heads)

    def seal_anew(self, first: int) -> None:
        """What a forger with every right does: make batch ``first`` and all after it fit the rows again."""
        for position in range(first - 1, len(self.batches)):
            old, members = self.batches[position]
            ids = [int.from_bytes(members[start : start + 8], "big") for start in range(0, len(members), 48)]
            fresh = b"".join(self.rows[row_id] for row_id in ids if row_id in self.rows)
            before = self.batches[position - 1][0] if position else None
            self.batches[position] = (make_seal(before, fresh, old.sealed_at), fresh)


def decisions(ids: Iterable[int], seed: int = 0) -> dict[int, Row]:
    """Different rows, a second apart."""
    dice = random.Random(seed)
    actions = ("claimed", "gate_passed", "gate_held", "approved", "promoted", "reverted")
    return {
        row_id: Row(
            id=row_id, at=BEGAN + timedelta(seconds=number), actor=f"editor {dice.randrange(9)}",
            action=dice.choice(actions), agent=dice.choice(("scout", "desk")), subject=f"1.{number}.0",
            detail=f'{{"why": "reason {dice.randrange(10**9)}"}}',
        )
        for number, row_id in enumerate(ids)
    }  # fmt: skip


def sealed(rows: Sequence[Row], most: int) -> Record:
    """The record of these rows, in batches of ``most``, each sealed a second after its last row, with every head kept."""
    record = Record(rows={row.id: row.entry for row in rows})
    before = None
    for start in range(0, len(rows), most):
        part = rows[start : start + most]
        members = b"".join(record.rows[row.id] for row in part)
        before = make_seal(before, members, max(row.at for row in part) + timedelta(seconds=1))
        record.batches.append((before, members))
        record.heads.append((before.batch, before.hash))
    return record


def other(value: str | datetime) -> str | datetime:
    """A value that differs as little as it can."""
    return value + timedelta(microseconds=1) if isinstance(value, datetime) else value + " "


def changed(row: Row, column: str) -> Row:
    """The row with one column changed."""
    return replace(row, **{column: other(getattr(row, column))})  # type: ignore[arg-type]
