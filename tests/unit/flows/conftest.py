"""Keys once; a fresh deployment per test."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.flows.desk import Desk
from tests.unit.registry.samples import Keys


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return Keys.make(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def desk(tmp_path: Path, keys: Keys) -> Desk:
    return Desk(tmp_path, keys)
