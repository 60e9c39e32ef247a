"""LISTEN/NOTIFY against a real PostgreSQL, also one that goes away."""

from __future__ import annotations

import asyncio
import time

import psycopg
import pytest

from perennial.bridge.triggers import PostgresBell
from tests.postgres_fixture import Database


def ring(database: Database, channel: str = "perennial_due") -> None:
    with psycopg.connect(database.app, autocommit=True) as connection:
        connection.execute("SELECT pg_notify(%s, 'scout')", (channel,))


def cut(database: Database) -> int:
    """End the listener's connection from the server's side."""
    with psycopg.connect(database.superuser, autocommit=True) as connection:
        return len(
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'perennial listener'"
                " AND datname = current_database()"
            ).fetchall()
        )


@pytest.mark.req("J33", "D5")
def test_it_rings_within_a_moment(database: Database) -> None:
    async def scene() -> tuple[bool, bool, float]:
        bell = PostgresBell(lambda: database.app)
        quiet = await bell.wait(0.3)
        loop = asyncio.get_running_loop()
        loop.call_later(0.3, lambda: loop.run_in_executor(None, ring, database))
        began = time.monotonic()
        rang = await bell.wait(20)
        seconds = time.monotonic() - began
        await bell.close()
        return quiet, rang, seconds

    quiet, rang, seconds = asyncio.run(scene())
    assert (quiet, rang) == (False, True)
    assert seconds < 5


def test_a_notification_between_two_waits_is_not_lost(database: Database) -> None:
    async def scene() -> list[bool]:
        bell = PostgresBell(lambda: database.app)
        heard = [await bell.wait(0.1)]
        await asyncio.to_thread(ring, database, "another_channel")
        await asyncio.to_thread(ring, database)
        heard.append(await bell.wait(5))
        heard.append(await bell.wait(0.1))
        await bell.close()
        return heard

    assert asyncio.run(scene()) == [False, True, False]


@pytest.mark.req("J82")
def test_a_cut_connection_costs_one_wait_and_then_it_listens_again(database: Database) -> None:
    async def scene() -> tuple[int, list[bool]]:
        bell = PostgresBell(lambda: database.app)
        heard = [await bell.wait(0.1)]
        killed = await asyncio.to_thread(cut, database)
        heard.append(await bell.wait(0.5))  # finds out
        heard.append(await bell.wait(0.5))  # listens again
        await asyncio.to_thread(ring, database)
        heard.append(await bell.wait(5))
        await bell.close()
        return killed, heard

    assert asyncio.run(scene()) == (1, [False, False, False, True])


@pytest.mark.req("J82")
def test_without_a_server_it_waits_and_says_nothing() -> None:
    async def scene() -> tuple[bool, float]:
        bell = PostgresBell(lambda: "postgresql://nobody@127.0.0.1:1/none")
        began = time.monotonic()
        rang = await bell.wait(0.5)
        return rang, time.monotonic() - began

    rang, seconds = asyncio.run(scene())
    assert rang is False
    assert seconds >= 0.5
