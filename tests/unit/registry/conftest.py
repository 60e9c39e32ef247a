"""Keys are made once; each test makes its own releases."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from tests.unit.registry.samples import Keys, Made, release


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return Keys.make(tmp_path_factory.mktemp("keys"))


@pytest.fixture(autouse=True)
def temporary_files_go_with_the_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@pytest.fixture
def made(tmp_path: Path, keys: Keys) -> Made:
    return release(tmp_path, keys)
