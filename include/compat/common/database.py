"""The predecessor's database module: the same functions over this process's bounded pool."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from perennial.client.connection import close_connection_pool, connection, get_pool_stats, initialize_connection_pool

__all__ = [
    "close_connection_pool",
    "execute_query",
    "get_db_connection",
    "get_pool_stats",
    "initialize_connection_pool",
]


@contextmanager
def get_db_connection() -> Iterator[Any]:
    """A pooled connection in a transaction: committed at the end of the block, rolled back on an exception.

    Waits for a free one instead of failing; StoreUnavailable when none comes or the server is away.
    """
    with connection().database.connection() as lent:
        yield lent


def execute_query(query: str, params: Sequence[Any] | None = None, fetch: bool = True) -> list[dict[str, Any]] | None:
    """Run one statement durably; its rows as dictionaries, or None without ``fetch``. Errors reach the caller."""
    with get_db_connection() as lent:
        cursor = lent.execute(query, params)
        return list(cursor.fetchall()) if fetch and cursor.description is not None else None
