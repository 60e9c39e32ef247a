"""A deployment per test, on a fresh database."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.acceptance.world import World, make_world
from tests.postgres_fixture import Database


@pytest.fixture
def world(database: Database, tmp_path: Path) -> World:
    """One agent, no rows yet."""
    return make_world(database, tmp_path, read_before=True)
