"""Embeddings remembered in PostgreSQL, so that a text is encoded once per deployment and encoder."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import date

from perennial.errors import StoreError
from perennial.storage.database import Database
from perennial.storage.queries import load

logger = logging.getLogger(__name__)

_CHUNK = 2_000  # vectors per statement: 384 numbers are 1.5 kB


class PostgresEmbeddings:
    """An ``EmbeddingCache`` over the app role: float32 bytes by encoder digest and text digest.

    A cache never stops its caller's work: when PostgreSQL is away it knows nothing and remembers nothing, and says so in
    the log.
    """

    _sql = load("perennial.storage", "embeddings.sql")

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, encoder: str, keys: Sequence[str]) -> dict[str, bytes]:
        """Those of ``keys`` that are known."""
        found: dict[str, bytes] = {}
        try:
            for start in range(0, len(keys), _CHUNK):
                values = {"encoder": encoder, "keys": list(keys[start : start + _CHUNK])}
                with self._database.connection() as connection:
                    for row in connection.execute(self._sql["get"], values, binary=True):
                        found[row["key"]] = row["vector"]
                    connection.execute(self._sql["touch"], values)
        except StoreError as error:
            logger.warning("the embedding cache cannot be read (%s); texts are encoded anew", error)
        return found

    def put(self, encoder: str, values: Mapping[str, bytes]) -> None:
        """Remember; the first vector of a key stays."""
        items = list(values.items())
        try:
            for start in range(0, len(items), _CHUNK):
                part = items[start : start + _CHUNK]
                rows = {"encoder": encoder, "keys": [key for key, _ in part], "vectors": [vector for _, vector in part]}
                with self._database.connection() as connection:
                    connection.execute(self._sql["put"], rows)
        except StoreError as error:
            logger.warning("the embedding cache cannot be written (%s); nothing else is lost", error)

    def forget(self, before: date) -> int:
        """Remove what nobody used since ``before``; returns how many vectors went."""
        with self._database.connection() as connection:
            return connection.execute(self._sql["forget"], {"before": before}).rowcount
