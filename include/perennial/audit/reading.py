"""One consistent view of the audit in PostgreSQL, streamed; what is hashed is hashed here and not in the server."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

from perennial.audit.chain import Seal, entry
from perennial.audit.verification import Chain
from perennial.errors import AuditBroken
from perennial.storage.database import Database
from perennial.storage.queries import load

if TYPE_CHECKING:
    from perennial.storage.database import Connection

_SIGNATURE = b"PGCOPY\n\xff\r\n\0"
_HEADER = len(_SIGNATURE) + 8  # flags and the length of an extension, which is 0
_TRAILER = 2  # bytes
_LEAD = b"\0\7\0\0\0\x08"  # seven columns, the first of eight bytes
_EIGHT = b"\0\0\0\x08"
_BATCHES_AT_ONCE = 16  # each holds up to 200 KB of entries
_WAITING_AT_ONCE = 4096

_REFUSES = ["append_only refuse_change", "no_truncate refuse_change"]
_COLUMNS = {
    "audit": [
        "id bigint", "at timestamp with time zone", "actor text", "action text", "agent text", "subject text", "detail jsonb",
    ],
    "audit_batches": [
        "batch bigint", "first_id bigint", "last_id bigint", "count bigint", "total bigint", "sealed_at timestamp with time zone",
        "members bytea", "digest bytea", "previous bytea", "hash bytea",
    ],
    "audit_unsealed": ["id bigint", "at timestamp with time zone", "content bytea"],
}  # fmt: skip
_TRIGGERS = {"audit": _REFUSES, "audit_batches": _REFUSES, "audit_unsealed": _REFUSES[1:]}


@contextmanager
def open_chain(database: Database) -> Iterator[Chain]:
    """The record at one moment, on two connections of one snapshot; memory is bounded, and no writer waits.

    Any role that may read the three tables. StoreUnavailable when PostgreSQL is away.
    """
    from psycopg import sql

    queries = load("perennial.audit")
    with database.connection() as first, database.connection() as second:
        first.execute(queries["one_view"])
        first.execute(queries["plain_bytes"])
        view = first.execute(queries["export_view"]).fetchone()
        second.execute(queries["one_view"])
        assert view is not None
        second.execute(sql.SQL(queries["import_view"]).format(view=sql.Literal(view["view"])))
        altered, unguarded = _judge(first.execute(queries["shape"]).fetchall())
        with (
            closing(_rows(first, queries["rows"])) as rows,
            closing(_seals(second, queries["batches"])) as seals,
            closing(_waiting(second, queries["waiting"])) as waiting,
        ):
            yield Chain(seals=seals, rows=rows, waiting=waiting, altered=altered, unguarded=unguarded)


def seal_of(row: dict[str, Any]) -> Seal:
    """A seal from a row of ``audit_batches``."""
    return Seal(**{name: row[name] for name in Seal.__dataclass_fields__})


def _judge(tables: list[dict[str, Any]]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    found = {table["name"]: table for table in tables}
    altered = [
        name
        for name, columns in _COLUMNS.items()
        if name not in found or found[name]["kind"] != "r" or found[name]["columns"] != columns
    ]
    unguarded = [
        name
        for name, triggers in _TRIGGERS.items()
        if name in found and (found[name]["triggers"] != triggers or found[name]["bent"])
    ]
    return tuple(altered), tuple(unguarded)


def _rows(connection: Connection, statement: str) -> Generator[bytes, None, None]:
    """Entries of all rows by id. PostgreSQL sends one message per row (manual, "COPY operations" of the protocol)."""
    sha256, join = hashlib.sha256, b"".join
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        for row in _messages(copy):
            if row[:6] != _LEAD or row[14:18] != _EIGHT:
                raise AuditBroken("a row of perennial.audit has no id or no time; its table was altered")
            yield join((row[6:14], row[18:26], sha256(row[26:]).digest()))


def _messages(copy: Any) -> Iterator[Any]:
    """One per row; the header comes with the first of them, the trailer by itself."""
    first = bytes(copy.read())
    if not first.startswith(_SIGNATURE):
        raise AuditBroken("PostgreSQL sent something else than rows; check PERENNIAL_DATABASE_URL")
    if len(first) > _HEADER + _TRAILER:
        yield first[_HEADER:]
    for message in copy:
        if len(message) > _TRAILER:
            yield message


def _seals(connection: Connection, statement: str) -> Generator[tuple[Seal, bytes], None, None]:
    with connection.cursor(name="seals") as cursor:
        cursor.itersize = _BATCHES_AT_ONCE
        for row in cursor.execute(statement):
            yield seal_of(row), row["members"]


def _waiting(connection: Connection, statement: str) -> Generator[bytes, None, None]:
    with connection.cursor(name="waiting") as cursor:
        cursor.itersize = _WAITING_AT_ONCE
        for row in cursor.execute(statement):
            yield entry(row["id"], row["at"], row["content"])
