"""How audit rows are chained: what is hashed, and in which bytes. Pure; migration 0007 does the same in SQL.

A row becomes an entry of 48 bytes: id, time, and the digest of all its other columns. A batch hashes its entries, and a seal hashes the
batch together with the hash of the seal before: the linked time-stamping of Haber and Stornetta (1991), with batches as their rounds.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

MOST = 4096  # rows of one batch: bounds the memory of sealing and of verifying
ENTRY_BYTES = 48
GENESIS = bytes(32)  # what the first seal follows
_TAG = b"perennial audit 1"
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)  # PostgreSQL's
_ENTRY = struct.Struct(">qq32s")
_TIME = struct.Struct(">8xq32x")
_NUMBERS = struct.Struct(">6q")
_LENGTH = struct.Struct(">i")


@dataclass(frozen=True, kw_only=True, slots=True)
class Seal:
    """One batch of the chain without its entries; ids and counts are of audit rows, ``total`` counts from the first batch on."""

    batch: int
    first_id: int
    last_id: int
    count: int
    total: int
    sealed_at: datetime
    digest: bytes
    previous: bytes
    hash: bytes


def ticks(at: datetime) -> int:
    """Microseconds since 2000-01-01 UTC, as PostgreSQL counts.

    >>> ticks(datetime(2000, 1, 1, 0, 0, 1, tzinfo=UTC))
    1000000
    """
    return (at - _EPOCH) // timedelta(microseconds=1)


def content_digest(actor: str, action: str, agent: str, subject: str, detail: str) -> bytes:
    """sha256 of every column but id and time, each led by its length, so that no two rows look alike.

    ``detail`` is JSON as PostgreSQL's ``jsonb`` prints it. The bytes are those of COPY BINARY (PostgreSQL manual, "COPY", file formats).

    >>> content_digest("ann", "approved", "scout", "1.2.0", "{}").hex()[:12]
    'b27c53787fa3'
    """
    fields = [value.encode() for value in (actor, action, agent, subject)] + [b"\x01" + detail.encode()]
    return hashlib.sha256(b"".join(_LENGTH.pack(len(field)) + field for field in fields)).digest()


def entry(row_id: int, at: datetime, content: bytes) -> bytes:
    """The 48 bytes of a row in its batch."""
    return _ENTRY.pack(row_id, ticks(at), content)


def entries_of(members: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Id, time in ticks and content digest of each entry."""
    return _ENTRY.iter_unpack(members)


def earliest(members: bytes) -> int:
    """The lowest time of the entries, in ticks."""
    found: tuple[int] = min(_TIME.iter_unpack(members))
    return found[0]


def seal_hash(seal: Seal) -> bytes:
    """What the seal's ``hash`` must be, from its other fields."""
    numbers = (seal.batch, seal.first_id, seal.last_id, seal.count, seal.total, ticks(seal.sealed_at))
    return hashlib.sha256(_TAG + _NUMBERS.pack(*numbers) + seal.digest + seal.previous).digest()


def make_seal(before: Seal | None, members: bytes, sealed_at: datetime) -> Seal:
    """The seal of these entries after ``before``.

    >>> one = make_seal(None, entry(7, _EPOCH, GENESIS), _EPOCH)
    >>> one.batch, one.first_id, one.count, one.hash == seal_hash(one), make_seal(one, entry(8, _EPOCH, GENESIS), _EPOCH).total
    (1, 7, 1, True, 2)
    """
    ids = [row_id for row_id, _, _ in entries_of(members)]
    fields: dict[str, Any] = {
        "batch": before.batch + 1 if before else 1, "first_id": ids[0], "last_id": ids[-1], "count": len(ids),
        "total": (before.total if before else 0) + len(ids), "sealed_at": sealed_at,
        "digest": hashlib.sha256(members).digest(), "previous": before.hash if before else GENESIS,
    }  # fmt: skip
    return Seal(**fields, hash=seal_hash(Seal(**fields, hash=b"")))


def json_text(value: Mapping[str, Any]) -> str:
    """JSON in one way only, as ``jsonb`` orders it: shorter keys first, then by bytes.

    >>> json_text({"why": "it fell", "at": [1, {"b": None, "a": True}]})
    '{"at": [1, {"a": true, "b": null}], "why": "it fell"}'
    """
    return json.dumps(_ordered(value), ensure_ascii=False, allow_nan=False)


def _ordered(value: Any) -> Any:
    if isinstance(value, Mapping):
        keys = sorted(value, key=lambda key: (len(str(key).encode()), str(key).encode()))
        return {str(key): _ordered(value[key]) for key in keys}
    return [_ordered(item) for item in value] if isinstance(value, list | tuple) else value
