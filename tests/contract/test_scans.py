"""The memory of texts without personal data: laws of both forms."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import pytest

from perennial.domain.redaction import ScanCache
from perennial.storage.database import Database
from perennial.storage.scans import MemoryScans, PostgresScans

pytestmark = pytest.mark.req("K67", "K68")


@pytest.fixture(params=["memory", "postgres"])
def make(request: pytest.FixtureRequest) -> Iterator[Callable[..., ScanCache]]:
    if request.param == "memory":
        yield MemoryScans
        return
    pool = Database(request.getfixturevalue("database").app)
    yield lambda **more: PostgresScans(pool, **more)
    pool.close()


def test_a_text_is_known_to_the_version_that_looked_at_it_alone(make: Callable[..., ScanCache]) -> None:
    cache = make()
    keys = [bytes([number % 256, number // 256]) * 8 for number in range(6000)]
    assert cache.known("1", keys) == set()
    cache.remember("1", keys[:5500])
    cache.remember("1", keys[:10])
    assert cache.known("1", keys) == set(keys[:5500])
    assert cache.known("2", keys) == set()
    assert cache.known("1", []) == set()


def test_a_full_cache_remembers_no_more(make: Callable[..., ScanCache]) -> None:
    cache = make(most=-1)
    cache.remember("1", [b"a" * 16])
    assert cache.known("1", [b"a" * 16]) == set()


def test_an_absent_server_stops_nobody(caplog: pytest.LogCaptureFixture) -> None:
    cache = PostgresScans(Database("postgresql://nobody@127.0.0.1:1/none?connect_timeout=1", wait_seconds=0.5))
    with caplog.at_level(logging.WARNING):
        cache.remember("1", [b"k"])
        assert cache.known("1", [b"k"]) == set()
    assert caplog.text.count("cannot be") == 2
