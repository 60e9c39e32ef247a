"""Keys are made once; each test makes its own releases."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.registry.samples import Keys, Made, release


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return Keys.make(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def made(tmp_path: Path, keys: Keys) -> Made:
    return release(tmp_path, keys)
