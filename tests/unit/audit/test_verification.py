"""Every kind of tampering is found, named rightly and at the right row; a sound chain never alarms."""

from __future__ import annotations

import random
from bisect import bisect
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial

import pytest

from perennial.audit.chain import Seal, make_seal, seal_hash
from perennial.audit.verification import Chain, Kind, Report, verify
from tests.unit.audit.chains import BEGAN, COLUMNS, Record, Row, changed, decisions, sealed

pytestmark = pytest.mark.req("K70")

Place = tuple[Kind, int, int | None]
ROWS, BATCH, TAMPERINGS = 20_000, 500, 1_000


class Tamper:
    """Attacks on one sound record of 20,000 rows; each returns what verification must name first: kind, batch and row."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.ids = sorted(self.dice.sample(range(1, ROWS * 5 // 4), ROWS))  # rolled back writers leave gaps
        self.gaps = sorted(set(range(1, self.ids[-1])) - set(self.ids))
        self.values = decisions(self.ids)
        self.sound = sealed(list(self.values.values()), BATCH)
        self.entries = [self.sound.rows[row_id] for row_id in self.ids]

    def pick(self) -> tuple[int, Row]:
        self.rows, self.batches = list(self.entries), list(self.sound.batches)
        position = self.dice.randrange(ROWS)
        return position, self.values[self.ids[position]]

    def verify(self) -> Report:
        return verify(Chain(seals=iter(self.batches), rows=iter(self.rows), waiting=iter(())), self.sound.heads)

    def edit(self, column: str) -> Place:
        position, row = self.pick()
        self.rows[position] = changed(row, column).entry
        return Kind.EDITED, position // BATCH + 1, row.id

    def delete(self) -> Place:
        position, row = self.pick()
        del self.rows[position]
        return Kind.DELETED, position // BATCH + 1, row.id

    def insert(self) -> Place:
        _, row = self.pick()
        forged = replace(row, id=self.dice.choice(self.gaps), actor="somebody else")
        position = bisect(self.ids, forged.id)
        self.rows.insert(position, forged.entry)
        return Kind.INSERTED, position // BATCH + 1, forged.id

    def swap(self) -> Place:
        position, row = self.pick()
        other = (position + self.dice.randrange(1, ROWS)) % ROWS
        twin = self.values[self.ids[other]]
        self.rows[position], self.rows[other] = replace(twin, id=row.id).entry, replace(row, id=twin.id).entry
        return Kind.REORDERED, min(position, other) // BATCH + 1, min(row.id, twin.id)

    def renumber(self) -> Place:
        position, row = self.pick()
        del self.rows[position]
        self.rows.append(replace(row, id=self.ids[-1] + 5).entry)
        return Kind.REORDERED, position // BATCH + 1, row.id

    def cut(self) -> Place:
        position, row = self.pick()
        del self.rows[position:]
        return Kind.DELETED, position // BATCH + 1, row.id

    def cut_with_batches(self) -> Place:
        position, _ = self.pick()
        left = position // BATCH or 1
        del self.batches[left:], self.rows[left * BATCH :]
        return Kind.CUT, left + 1, self.ids[left * BATCH - 1]

    def fork(self) -> Place:
        """What a forger with every right does: everything from the changed row on is sealed anew."""
        position, row = self.pick()
        self.rows[position] = changed(row, "actor").entry
        first = position // BATCH
        for number in range(first, len(self.batches)):
            before = self.batches[number - 1][0] if number else None
            members = b"".join(self.rows[number * BATCH : (number + 1) * BATCH])
            self.batches[number] = (make_seal(before, members, self.batches[number][0].sealed_at), members)
        return Kind.FORKED, first + 1, None


def attacks(tamper: Tamper) -> list[tuple[str, Callable[[], Place]]]:
    """Every way to tamper, by name."""
    others = (
        tamper.delete,
        tamper.insert,
        tamper.swap,
        tamper.renumber,
        tamper.cut,
        tamper.cut_with_batches,
        tamper.fork,
    )
    edits = [(f"edit {column}", partial(tamper.edit, column)) for column in COLUMNS]
    return [*edits, *((how.__name__.replace("_", " "), how) for how in others)]


def test_a_thousand_tamperings_on_twenty_thousand_rows_are_found_at_the_right_row() -> None:
    tamper = Tamper(11)
    tamper.pick()
    assert tamper.verify().sound
    hows = attacks(tamper)
    missed = []
    for number in range(TAMPERINGS):
        name, how = hows[number % len(hows)]
        where = how()
        first = next(iter(tamper.verify().findings), None)
        if first is None or (first.kind, first.batch, first.row) != where:
            missed.append((number, name, where, first))
    assert missed == []


def small() -> Record:
    return sealed(list(decisions(range(1, 41)).values()), 10)


def test_rows_that_became_visible_late_are_no_tampering() -> None:
    """A writer that took its id early and committed late lands in a later batch; the ids of that batch begin before the last one's end."""
    rows = decisions(range(1, 61))
    late = {3, 17, 18, 40}
    order = [row for row in rows.values() if row.id not in late]
    parts = [order[:20], sorted([*order[20:40], rows[3], rows[17]], key=lambda row: row.id), [rows[18]], order[40:]]
    record, before = Record(rows={row.id: row.entry for row in rows.values()}), None
    for part in parts:
        members = b"".join(row.entry for row in part)
        before = make_seal(before, members, BEGAN + timedelta(minutes=2))
        record.batches.append((before, members))
    record.waiting = {40: rows[40].entry}
    report = record.verify()
    assert report.sound, report.findings
    assert (report.rows, report.batches, report.unsealed) == (60, 4, 1)
    del record.rows[17]
    (finding,) = record.verify().findings
    assert (finding.kind, finding.batch, finding.row) == (Kind.DELETED, 2, 17)


def test_what_waits_for_a_seal_is_watched_too() -> None:
    rows = decisions(range(1, 46))
    record = small()
    for row_id in range(41, 46):
        record.rows[row_id] = record.waiting[row_id] = rows[row_id].entry
    assert record.verify().unsealed == 5
    for tamper, kind in (
        (lambda r: r.rows.__setitem__(43, changed(rows[43], "detail").entry), Kind.EDITED),
        (lambda r: r.rows.pop(43), Kind.DELETED),
        (lambda r: r.waiting.pop(43), Kind.INSERTED),
    ):
        tampered = record.copy()
        tamper(tampered)
        (finding,) = tampered.verify().findings
        assert (finding.kind, finding.batch, finding.row) == (kind, 5, 43)


@pytest.mark.parametrize("name", ["first_id", "last_id", "count", "total", "sealed_at", "digest", "previous", "hash"])
def test_every_column_of_a_batch_counts(name: str) -> None:
    record = small()
    seal, members = record.batches[1]
    value = getattr(seal, name)
    wrong = bytes(32) if isinstance(value, bytes) else value + (1 if isinstance(value, int) else timedelta(seconds=1))
    record.batches[1] = (replace(seal, **{name: wrong}), members)
    report = record.verify()
    assert report.findings[0].batch == 2
    assert report.findings[0].row is None


def test_changed_entries_accuse_the_batch_and_no_row() -> None:
    record = small()
    seal, members = record.batches[1]
    record.batches[1] = (seal, members[:48] + bytes(48) + members[96:])
    first = record.verify().findings[0]
    assert (first.kind, first.batch, first.row) == (Kind.EDITED, 2, None)


def test_a_missing_batch_a_second_one_of_its_number_and_a_broken_link() -> None:
    record = small()
    del record.batches[1]
    first = record.verify().findings[0]
    assert (first.kind, first.batch) == (Kind.DELETED, 2)

    record = small()
    record.batches.insert(2, record.batches[1])
    first = record.verify().findings[0]
    assert (first.kind, first.batch) == (Kind.FORKED, 2)

    record = small()
    seal, members = record.batches[2]
    loose = replace(seal, previous=bytes(31) + b"\1")
    record.batches[2] = (replace(loose, hash=seal_hash(loose)), members)
    first = record.verify().findings[0]
    assert (first.kind, first.batch) == (Kind.FORKED, 3)


def test_two_rows_of_one_id_are_found_also_at_the_edge_of_a_batch() -> None:
    for row_id in (10, 11, 40):
        record = small()
        rows = [record.rows[one] for one in sorted(record.rows)]
        forged = changed(decisions(range(1, 41))[row_id], "actor").entry
        for position in (row_id - 1, row_id):
            doubled = [*rows[:position], forged, *rows[position:]]
            report = verify(Chain(seals=iter(record.batches), rows=iter(doubled), waiting=iter(())))
            assert report.findings[0].row == row_id, (row_id, position)


def test_a_row_that_was_put_in_later_with_an_old_time_is_backdated() -> None:
    record = small()
    last: Seal = record.batches[-1][0]
    sealed_at = last.sealed_at + timedelta(days=30)
    for age, kinds in ((timedelta(minutes=59), []), (timedelta(hours=2), [Kind.BACKDATED])):
        forged = replace(decisions([41])[41], at=last.sealed_at - age).entry
        tampered = record.copy()
        tampered.rows[41] = forged
        tampered.batches.append((make_seal(last, forged, sealed_at), forged))
        report = tampered.verify()
        assert [finding.kind for finding in report.findings] == kinds
        assert all((finding.batch, finding.row) == (5, 41) for finding in report.findings)


def test_a_clock_that_was_put_back_does_not_alarm() -> None:
    record = small()
    last = record.batches[-1][0]
    row = replace(decisions([41])[41], at=last.sealed_at - timedelta(days=2)).entry
    record.rows[41] = row
    record.batches.append((make_seal(last, row, last.sealed_at - timedelta(days=2)), row))
    assert record.verify().sound


def test_a_cut_is_invisible_without_a_head_and_a_fork_is_narrowed_by_the_heads_there_are() -> None:
    record = small()
    record.batches = record.batches[:2]
    record.rows = {row_id: one for row_id, one in record.rows.items() if row_id <= 20}
    assert record.verify().findings[0].kind is Kind.CUT
    record.heads = record.heads[:2]
    assert record.verify().sound

    record = small()
    record.rows[25] = changed(decisions(range(1, 41))[25], "actor").entry
    record.seal_anew(3)
    heads = record.heads
    record.heads = [heads[0], heads[3]]
    (finding,) = record.verify().findings
    assert (finding.kind, finding.batch) == (Kind.FORKED, 2)
    assert "one of the batches 2 to 4" in finding.text
    record.heads = []
    assert record.verify().sound


def test_findings_come_in_the_order_of_the_chain_and_are_counted() -> None:
    rows = decisions(range(1, 41))
    record = small()
    record.rows[33] = changed(rows[33], "subject").entry
    del record.rows[12]
    record.rows[28] = changed(rows[28], "agent").entry
    report = record.verify()
    assert [(finding.kind, finding.row) for finding in report.findings] == [
        (Kind.DELETED, 12), (Kind.EDITED, 28), (Kind.EDITED, 33),
    ]  # fmt: skip
    assert (report.found, report.rows) == (3, 39)


def test_altered_tables_are_not_read_and_missing_guards_are_said_last() -> None:
    def unread() -> None:
        raise AssertionError("rows of an altered table are not read")

    class Never:
        def __iter__(self) -> Never:
            return self

        def __next__(self) -> bytes:
            unread()
            raise StopIteration

    report = verify(Chain(seals=Never(), rows=Never(), waiting=Never(), altered=("audit",)))  # type: ignore[arg-type]
    assert [finding.kind for finding in report.findings] == [Kind.ALTERED]
    record = small()
    del record.rows[12]
    rows = iter([record.rows[one] for one in sorted(record.rows)])
    report = verify(Chain(seals=iter(record.batches), rows=rows, waiting=iter(()), unguarded=("audit",)))
    assert [finding.kind for finding in report.findings] == [Kind.DELETED, Kind.ALTERED]


def test_a_chain_in_ruins_ends_the_walk_instead_of_filling_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perennial.audit.verification._UNCLAIMED", 15)
    record = small()
    record.batches = record.batches[3:]
    report = record.verify()
    assert report.findings[0].batch == 1
    assert not report.sound
