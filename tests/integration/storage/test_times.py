"""Times read from the database are in UTC, whatever the server's zone is: messages print them as such."""

from __future__ import annotations

from datetime import UTC, datetime

import psycopg
import pytest
from psycopg import sql

from perennial.storage.database import Database as Pool
from tests.postgres_fixture import Database


@pytest.mark.req("K82")
def test_times_come_back_in_utc_from_a_server_in_another_zone(database: Database) -> None:
    with psycopg.connect(database.superuser, autocommit=True) as connection:
        name = sql.Identifier(database.name)
        connection.execute(sql.SQL("ALTER DATABASE {} SET timezone TO 'Asia/Kathmandu'").format(name))
    pool = Pool(database.app)
    for _ in range(2):  # the second is lent again
        with pool.connection() as connection:
            row = connection.execute("SELECT timestamptz '2026-11-21 23:30+00' AS at").fetchone()
        assert row is not None
        assert row["at"] == datetime(2026, 11, 21, 23, 30, tzinfo=UTC)
        assert f"{row['at']:%Y-%m-%d %H:%M}" == "2026-11-21 23:30"
    pool.close()
