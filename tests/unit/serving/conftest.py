"""One small world per test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.serving.world import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    small = World(tmp_path)
    yield small
    small.close()


@pytest.fixture
def drill(tmp_path: Path) -> Iterator[World]:
    """A gateway that was started for drills."""
    small = World(tmp_path, faults=True)
    yield small
    small.close()
