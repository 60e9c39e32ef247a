"""The buffer on PostgreSQL."""

from __future__ import annotations

from perennial.ingest.postgres_intake import PostgresIntake
from perennial.ingest.postgres_origins import PostgresOrigins
from perennial.ingest.postgres_reads import PostgresReads
from perennial.storage.database import Database


class PostgresBuffer(PostgresIntake, PostgresOrigins, PostgresReads):
    """The buffer behind all processes of a deployment; one method is one transaction, safe to share between threads.

    Needs the app role. Raises StoreUnavailable when the server is away: then nothing was acknowledged and the call may
    be repeated with the same example ids.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def __repr__(self) -> str:
        return f"PostgresBuffer({self._database!r})"
