"""The embedding cache on a real server."""

from __future__ import annotations

import logging
from datetime import date, timedelta

import pytest

from perennial.storage.database import Database
from perennial.storage.embeddings import PostgresEmbeddings
from tests.postgres_fixture import Database as Urls


def test_vectors_come_back_byte_for_byte_and_by_encoder(database: Urls) -> None:
    cache = PostgresEmbeddings(Database(database.app))
    vectors = {f"{number:064x}": bytes([number % 256]) * 1536 for number in range(2500)}
    cache.put("encoder-a", vectors)
    assert cache.get("encoder-a", [*vectors, "unknown"]) == vectors
    assert cache.get("encoder-b", list(vectors)) == {}
    cache.put("encoder-a", {f"{1:064x}": b"other"})
    assert cache.get("encoder-a", [f"{1:064x}"]) == {f"{1:064x}": vectors[f"{1:064x}"]}
    assert cache.get("encoder-a", []) == {}


def test_what_nobody_uses_can_be_forgotten(database: Urls) -> None:
    pool = Database(database.app)
    cache = PostgresEmbeddings(pool)
    cache.put("e", {"used": b"1", "unused": b"2"})
    with pool.connection() as connection:
        connection.execute("UPDATE perennial.embeddings SET used_at = current_date - 30")
    cache.get("e", ["used"])
    assert cache.forget(date.today() - timedelta(days=7)) == 1
    assert set(cache.get("e", ["used", "unused"])) == {"used"}


def test_an_absent_server_stops_nobody(caplog: pytest.LogCaptureFixture) -> None:
    cache = PostgresEmbeddings(Database("postgresql://nobody@127.0.0.1:1/none?connect_timeout=1", wait_seconds=0.5))
    with caplog.at_level(logging.WARNING):
        cache.put("e", {"k": b"v"})
        assert cache.get("e", ["k"]) == {}
    assert caplog.text.count("cannot be") == 2
