"""This process's one connection to the store: a bounded pool, made on first use."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from perennial.ingest.buffer import PostgresBuffer
    from perennial.ingest.door import Door
    from perennial.storage.database import Database

_guard = threading.Lock()


class _Connection:
    """The pool, the buffer over it and the door before it; made together, closed together."""

    def __init__(self) -> None:
        from perennial.ingest.buffer import PostgresBuffer
        from perennial.ingest.door import Door
        from perennial.settings import load_settings
        from perennial.storage.database import Database

        smallest = int(os.environ.get("DB_POOL_MIN_CONNECTIONS") or 0)
        largest = int(os.environ.get("DB_POOL_MAX_CONNECTIONS") or 10)
        self.database: Database = Database(load_settings().app_url(), min_size=smallest, max_size=largest)
        self.buffer: PostgresBuffer = PostgresBuffer(self.database)
        self.door: Door = Door(self.buffer)


_open: _Connection | None = None


def connection() -> _Connection:
    """This process's connection. Raises NotConfigured when no setting names the database."""
    global _open
    with _guard:
        if _open is None:
            _open = _Connection()
        return _open


def initialize_connection_pool() -> None:
    """Close the pool and open a new one with the settings as they are now, without restarting the process.

    Pool sizes come from DB_POOL_MIN_CONNECTIONS (0) and DB_POOL_MAX_CONNECTIONS (10).
    """
    close_connection_pool()
    with connection().database.connection() as probe:
        probe.execute("SELECT 1")


def close_connection_pool() -> None:
    """Close the pool; the next call opens a new one."""
    global _open
    with _guard:
        if _open is not None:
            _open.database.close()
        _open = None


def get_pool_stats() -> dict[str, int]:
    """min_connections, max_connections, connections_in_use, connections_available and total_connections, as they are."""
    return connection().database.statistics()
