"""Which texts hold no personal data, remembered in PostgreSQL, so that a text is looked at once per redactor version."""

from __future__ import annotations

import logging
from collections.abc import Collection

from perennial.errors import StoreError
from perennial.storage.database import Database
from perennial.storage.queries import load

logger = logging.getLogger(__name__)

MOST = 5_000_000  # texts: about 700 MB with the indexes
_CHUNK = 5_000  # keys of one statement


class PostgresScans:
    """A ``ScanCache`` over the app role. When PostgreSQL is away it knows nothing and remembers nothing, and says so in the log."""

    _sql = load("perennial.storage", "scans.sql")

    def __init__(self, database: Database, *, most: int = MOST) -> None:
        self._database, self._most = database, most

    def known(self, version: str, keys: Collection[bytes]) -> set[bytes]:
        """See ``ScanCache``."""
        found: set[bytes] = set()
        try:
            for part in _parts(keys):
                values = {"version": version, "keys": part}
                with self._database.connection() as connection:
                    found |= {bytes(row["key"]) for row in connection.execute(self._sql["known"], values)}
                    connection.execute(self._sql["touch"], values)
        except StoreError as error:
            logger.warning("the cache of scanned texts cannot be read (%s); texts are looked at again", error)
        return found

    def remember(self, version: str, keys: Collection[bytes]) -> None:
        """See ``ScanCache``."""
        try:
            for part in _parts(keys):
                with self._database.connection() as connection:
                    values = {"version": version, "keys": part, "most": self._most}
                    connection.execute(self._sql["remember"], values)
        except StoreError as error:
            logger.warning("the cache of scanned texts cannot be written (%s); nothing else is lost", error)


class MemoryScans:
    """The twin in memory; full at ``most``."""

    def __init__(self, *, most: int = MOST) -> None:
        self._known: set[tuple[str, bytes]] = set()
        self._most = most

    def known(self, version: str, keys: Collection[bytes]) -> set[bytes]:
        """See ``ScanCache``."""
        return {key for key in keys if (version, key) in self._known}

    def remember(self, version: str, keys: Collection[bytes]) -> None:
        """See ``ScanCache``."""
        if len(self._known) < self._most:
            self._known |= {(version, key) for key in keys}


def _parts(keys: Collection[bytes]) -> list[list[bytes]]:
    ordered = sorted(set(keys))  # one order for all, so that two writers never wait for each other
    return [ordered[start : start + _CHUNK] for start in range(0, len(ordered), _CHUNK)]
