"""One pool per URL and process, with the driver's errors translated at this seam."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from perennial.errors import StoreError, StoreUnavailable

if TYPE_CHECKING:
    import psycopg
    from psycopg_pool import ConnectionPool

    Connection = psycopg.Connection[dict[str, Any]]

# A server that is gone without a word is noticed within a minute; a long statement on a live one is left alone.
REACH = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}


def _speak_utc(connection: Connection) -> None:
    """Times come back in UTC, as people read them here, whatever the server's or its user's own zone is."""
    connection.execute("SET TIME ZONE 'UTC'")
    connection.commit()


class Database:
    """Lends connections whose rows are dictionaries; one block is one transaction.

    The pool is made on first use and again after a fork (a child must not share sockets with its parent).
    Bounded: at most ``max_size`` connections; a caller waits up to ``wait_seconds`` for one, then StoreUnavailable.
    """

    def __init__(self, url: str, *, min_size: int = 0, max_size: int = 8, wait_seconds: float = 10.0) -> None:
        self._url = url
        self._min_size, self._max_size, self._wait = min_size, max_size, wait_seconds
        self._pool: ConnectionPool[Any] | None = None
        self._pid = 0
        self._guard = threading.Lock()

    def __repr__(self) -> str:
        return f"Database(pool of {self._max_size})"  # never the URL: it holds the password

    def _open(self) -> ConnectionPool[Any]:
        from psycopg.rows import dict_row
        from psycopg_pool import ConnectionPool

        with self._guard:
            if self._pool is None or self._pid != os.getpid():
                self._pool = ConnectionPool(
                    self._url, min_size=self._min_size, max_size=self._max_size, timeout=self._wait,
                    kwargs={"row_factory": dict_row, "application_name": "perennial", **REACH},
                    check=ConnectionPool.check_connection, configure=_speak_utc, max_idle=60.0, reconnect_timeout=30.0, open=True,
                )  # fmt: skip
                self._pid = os.getpid()
            return self._pool

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """A connection in a transaction: committed at the end of the block, rolled back on an exception.

        Raises StoreUnavailable when the server is away or the pool is exhausted. A loss during COMMIT is
        reported so too; every write of Perennial is idempotent by id, so the caller may repeat it.
        """
        import psycopg
        from psycopg_pool import PoolTimeout

        try:
            with self._open().connection() as connection:
                yield connection
        except PoolTimeout as error:
            raise StoreUnavailable("no connection to PostgreSQL in time; it is away or busy, try again") from error
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:
            raise StoreUnavailable(
                f"PostgreSQL is away ({type(error).__name__}); nothing was acknowledged, try again"
            ) from error
        except psycopg.Error as error:
            # the driver's text can quote a row, so only its class and the constraint's name go on
            constraint = getattr(getattr(error, "diag", None), "constraint_name", None)
            told = f"PostgreSQL refused: {type(error).__name__}{f' ({constraint})' if constraint else ''}"
            error.args = (told,)  # a log prints the whole chain of an error
            raise StoreError(told) from error

    def statistics(self) -> dict[str, int]:
        """True numbers of the pool: min, max, in use, available, total."""
        numbers = self._open().get_stats()
        total, idle = int(numbers.get("pool_size", 0)), int(numbers.get("pool_available", 0))
        return {
            "min_connections": self._min_size, "max_connections": self._max_size,
            "connections_in_use": max(total - idle, 0), "connections_available": self._max_size - max(total - idle, 0),
            "total_connections": total,
        }  # fmt: skip

    def close(self) -> None:
        """Close the pool; the next use opens a new one."""
        with self._guard:
            if self._pool is not None and self._pid == os.getpid():
                self._pool.close()
            self._pool = None
