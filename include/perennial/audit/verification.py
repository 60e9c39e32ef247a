"""Walks the chain of audit rows and names the first place where it does not hold. Pure: entries and heads in, a report out."""

from __future__ import annotations

import hashlib
import heapq
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from itertools import islice

from perennial.audit.chain import ENTRY_BYTES, GENESIS, MOST, Seal, earliest, entries_of, seal_hash, ticks

LATE = timedelta(hours=1)  # a row that claims to be older than this when its batch was sealed was put in afterwards
_UNCLAIMED = 100_000  # rows out of order that are remembered; a sound chain has a handful
_NAMED = 1_000  # findings that a report holds; the rest is counted


class Kind(StrEnum):
    """What was done to the record."""

    EDITED = "edited"
    DELETED = "deleted"
    INSERTED = "inserted"
    REORDERED = "reordered"
    BACKDATED = "backdated"
    CUT = "cut"  # rows at the end are gone, with their batches
    FORKED = "forked"  # the chain holds in itself, but it is another one than the kept head knows
    ALTERED = "altered"  # a table or its protection is not as the migrations made it
    UNTRUSTED = "untrusted"  # the kept head was not made with our key


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One place where the record does not hold.

    ``batch`` is None when it concerns a whole table or the file of heads; ``row`` is an audit id, None when a whole batch is concerned;
    of a cut it is the last row that is left.
    """

    kind: Kind
    text: str
    batch: int | None = None
    row: int | None = None


@dataclass(frozen=True, kw_only=True)
class Chain:
    """One consistent view of the record: seals with their entries, rows by id, entries that wait for a seal by id.

    ``altered`` names tables that are not as the migrations made them, ``unguarded`` those whose protection is off.
    """

    seals: Iterator[tuple[Seal, bytes]]
    rows: Iterator[bytes]
    waiting: Iterator[bytes]
    altered: tuple[str, ...] = ()
    unguarded: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Report:
    """What verification saw. ``findings`` are in the order of the chain, the first 1,000 of ``found``; ``compared`` is the newest
    kept head that the chain was compared with (its batch), None when there was none."""

    rows: int
    batches: int
    unsealed: int
    head: Seal | None
    compared: int | None
    findings: tuple[Finding, ...]
    found: int

    @property
    def sound(self) -> bool:
        """Whether nothing was found."""
        return self.found == 0

    def with_finding(self, finding: Finding) -> Report:
        """The report with one more finding, at its end."""
        return replace(self, findings=(*self.findings, finding), found=self.found + 1)


def verify(chain: Chain, heads: Iterable[tuple[int, bytes]] = ()) -> Report:
    """Recompute every digest and hash and compare; a cut or a fork shows only against ``heads`` (batch, hash) kept elsewhere.

    ``heads`` come in the order of their batches, and were read before the view was taken. One pass; memory is bounded by a batch and
    100,000 rows out of order, whatever the length. A row is found by itself (its entry disagrees); where a batch's own record
    was changed as well, the batch is named.

    >>> verify(Chain(seals=iter(()), rows=iter(()), waiting=iter(()))).sound
    True
    """
    walk = _Walk(chain, heads)
    if not chain.altered:
        walk.go()
    return walk.report()


class _Heads:
    """The kept heads, consumed beside the chain."""

    def __init__(self, heads: Iterable[tuple[int, bytes]]) -> None:
        self._heads = iter(heads)
        self._next = next(self._heads, None)
        self._agreed = 0
        self.compared: int | None = None
        self._forked = False

    def compare(self, seal: Seal) -> Finding | None:
        """A finding at the first head that knows another batch of this number."""
        finding = None
        while self._next is not None and self._next[0] <= seal.batch:
            batch, known = self._next
            self._next = next(self._heads, None)
            if batch < seal.batch:  # the batch is missing, which its number says already
                continue
            self.compared = batch
            if known == seal.hash:
                self._agreed = batch
            elif not self._forked:
                self._forked = True
                first = self._agreed + 1
                which = f"batch {batch}" if first == batch else f"one of the batches {first} to {batch}"
                rows = f" (rows {seal.first_id} to {seal.last_id})" if first == batch else ""
                text = f"{which}{rows} is not the one that was sealed: the head kept for batch {batch} has another hash"
                finding = Finding(kind=Kind.FORKED, batch=first, text=text)
        return finding

    def beyond(self, last: Seal | None) -> Finding | None:
        """A finding when a head is newer than the chain's end."""
        ends, newest = last.batch if last else 0, self._next
        if newest is None:
            return None
        for newest in self._heads:  # noqa: B007 - the last one counts
            pass
        row = last.last_id if last else None
        where = f"after row {row}" if last else "from the first on"
        self.compared = newest[0]
        text = f"rows are missing {where}: the chain ends with batch {ends}, a kept head knows batch {newest[0]}"
        return Finding(kind=Kind.CUT, batch=ends + 1, row=row, text=text)


class _Walk:
    def __init__(self, chain: Chain, heads: Iterable[tuple[int, bytes]]) -> None:
        self._chain = chain
        self._heads = _Heads(heads)
        self._ahead: deque[bytes] = deque()  # read already, of higher ids than the batch at hand
        # rows that no batch has named yet, with the batch at hand when they came
        self._unclaimed: dict[int, tuple[int, bytes]] = {}
        # each finding with what its row held when it was sealed, and what it holds
        self._noted: list[tuple[Finding, bytes, bytes]] = []
        self._rows = self._batches = self._unsealed = self._found = 0
        self._last: Seal | None = None

    def go(self) -> None:
        for seal, members in self._chain.seals:
            self._batches += 1
            trusted = self._check_seal(seal, members)
            if not self._claim(members, seal.batch, trusted):
                return
            self._note(self._heads.compare(seal))
            self._last = seal
        end = self._last.batch + 1 if self._last else 1
        while members := b"".join(islice(self._chain.waiting, MOST)):
            self._unsealed += len(members) // ENTRY_BYTES
            if not self._claim(members, end, True):
                return
        self._note(self._heads.beyond(self._last))
        while taken := self._take(MOST):
            self._remember(taken, end)
            if not self._within_bounds(end):
                return
        self._nobodys()

    def report(self) -> Report:
        findings = self._name_moves()
        for table in self._chain.altered:
            text = f"table perennial.{table} has other columns than the migrations gave it; its rows were not looked at"
            findings.append(Finding(kind=Kind.ALTERED, text=text))
        for table in self._chain.unguarded:
            text = f"the triggers, rules or row policies of perennial.{table} are not as the migrations made them"
            findings.append(Finding(kind=Kind.ALTERED, text=text))
        return Report(
            rows=self._rows, batches=self._batches, unsealed=self._unsealed, head=self._last,
            compared=self._heads.compared, findings=tuple(findings),
            found=self._found + len(self._chain.altered) + len(self._chain.unguarded),
        )  # fmt: skip

    # seals

    def _check_seal(self, seal: Seal, members: bytes) -> bool:
        """Whether the entries are those that the seal covers; complains when not, and about the seal's own links."""
        intact = hashlib.sha256(members).digest() == seal.digest and self._fits(seal, members)
        if not intact or seal_hash(seal) != seal.hash:
            self._batch(Kind.EDITED, seal.batch, f"the record of batch {seal.batch} was changed after it was sealed")
        before, number = self._last, self._last.batch if self._last else 0
        if seal.batch > number + 1:
            after = f", after row {before.last_id}" if before else ""
            self._batch(Kind.DELETED, number + 1, f"batches {number + 1} to {seal.batch - 1} are missing{after}")
        elif seal.batch <= number:
            self._batch(Kind.FORKED, seal.batch, f"there are two batches {seal.batch}")
        elif seal.previous != (before.hash if before else GENESIS):
            self._batch(Kind.FORKED, seal.batch, f"batch {seal.batch} does not follow the batch before it")
        elif seal.total != (before.total if before else 0) + seal.count:
            self._batch(Kind.EDITED, seal.batch, f"batch {seal.batch} does not count its rows right")
        if intact:
            self._check_times(seal, members)
        return intact

    def _fits(self, seal: Seal, members: bytes) -> bool:
        if not members or len(members) % ENTRY_BYTES:
            return False
        (first, _, _), (last, _, _) = (*entries_of(members[:ENTRY_BYTES]), *entries_of(members[-ENTRY_BYTES:]))
        return (seal.first_id, seal.last_id, seal.count * ENTRY_BYTES) == (first, last, len(members))

    def _check_times(self, seal: Seal, members: bytes) -> None:
        """No row may claim to be much older than the batch before its own. Only what both seals say counts, so a clock that was
        put right does not alarm."""
        if self._last is None:
            return
        floor = ticks(min(self._last.sealed_at, seal.sealed_at) - LATE)
        if earliest(members) >= floor:
            return
        for row_id, at, _ in entries_of(members):
            if at < floor:
                text = f"row {row_id} claims a time long before batch {seal.batch - 1}, but was put in after it"
                self._note(Finding(kind=Kind.BACKDATED, batch=seal.batch, row=row_id, text=text))

    # rows

    def _take(self, count: int) -> list[bytes]:
        taken = [self._ahead.popleft() for _ in range(min(count, len(self._ahead)))]
        fresh = list(islice(self._chain.rows, count - len(taken)))
        self._rows += len(fresh)
        return taken + fresh

    def _claim(self, members: bytes, batch: int, trusted: bool) -> bool:
        """Match the rows with a batch's entries; False when too much is out of order to go on."""
        taken = self._take(len(members) // ENTRY_BYTES)
        if b"".join(taken) == members:
            return True
        whole = range(0, len(members) - len(members) % ENTRY_BYTES, ENTRY_BYTES)
        expected = {_id(one): one for one in (members[start : start + ENTRY_BYTES] for start in whole)}
        last = max(expected, default=0)
        while taken and _id(taken[-1]) <= last and (more := self._take(1)):
            taken += more
            if len(taken) > _UNCLAIMED:
                break
        while taken and _id(taken[-1]) > last:
            self._ahead.appendleft(taken.pop())
        self._remember(taken, batch)
        for row_id, sealed in expected.items():
            self._settle(row_id, sealed, batch, trusted)
        return self._within_bounds(batch)

    def _remember(self, rows: list[bytes], batch: int) -> None:
        for one in rows:
            if _id(one) in self._unclaimed:
                text = f"there are two rows {_id(one)}"
                self._note(Finding(kind=Kind.INSERTED, batch=batch, row=_id(one), text=text))
            self._unclaimed[_id(one)] = (batch, one)

    def _settle(self, row_id: int, sealed: bytes, batch: int, trusted: bool) -> None:
        found = self._unclaimed.pop(row_id, None)
        if not trusted or (found is not None and found[1] == sealed):
            return
        kind = Kind.EDITED if found else Kind.DELETED
        text = f"row {row_id} {'was changed after it was written' if found else 'is missing'}"
        self._note(Finding(kind=kind, batch=batch, row=row_id, text=text), sealed, found[1] if found else b"")

    def _within_bounds(self, batch: int) -> bool:
        if len(self._unclaimed) <= _UNCLAIMED:
            return True
        self._nobodys()
        self._batch(
            Kind.DELETED, batch, f"from batch {batch} on too much is out of order; nothing after it was looked at"
        )
        return False

    def _nobodys(self) -> None:
        for row_id, (batch, one) in self._unclaimed.items():
            text = f"row {row_id} is in no batch and does not wait for one"
            self._note(Finding(kind=Kind.INSERTED, batch=batch, row=row_id, text=text), b"", one)

    # findings

    def _batch(self, kind: Kind, batch: int, text: str) -> None:
        self._note(Finding(kind=kind, batch=batch, text=text))

    def _note(self, finding: Finding | None, sealed: bytes = b"", holds: bytes = b"") -> None:
        if finding is None:
            return
        self._found += 1
        if self._found <= _NAMED:
            self._noted.append((finding, sealed[8:], holds[8:]))

    def _name_moves(self) -> list[Finding]:
        """The findings in order; one whose content is that of another row was not edited but moved."""
        was = {sealed: finding.row for finding, sealed, _ in self._noted if sealed}
        now = {holds: finding.row for finding, _, holds in self._noted if holds}
        named = []
        for finding, sealed, holds in self._noted:
            origin, goal = was.get(holds), now.get(sealed)
            if origin is not None and origin != finding.row:
                text = f"row {finding.row} holds what row {origin} held"
                finding = replace(finding, kind=Kind.REORDERED, text=text)
            elif goal is not None and goal != finding.row:
                text = f"what row {finding.row} held is now in row {goal}"
                finding = replace(finding, kind=Kind.REORDERED, text=text)
            named.append(finding)
        return sorted(named, key=lambda finding: (finding.batch or 0, finding.row or 0))


def merged(*sources: Iterable[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    """Heads of several sources in the order of their batches."""
    return heapq.merge(*sources)


def _id(one: bytes) -> int:
    return int.from_bytes(one[:8], "big", signed=True)
