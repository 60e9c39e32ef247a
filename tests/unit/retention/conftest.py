"""One signer for the tests of this room."""

from __future__ import annotations

import pytest

from tests.unit.registry.samples import Keys


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return Keys.make(tmp_path_factory.mktemp("keys"))
