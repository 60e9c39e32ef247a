"""One redactor for the room's tests: building the detectors takes seconds."""

from __future__ import annotations

import pytest

from perennial.guard.redactor import Redactor

KEY = b"a key of the tests, not a secret"


@pytest.fixture(scope="session")
def redactor() -> Redactor:
    return Redactor(names=True, key=KEY)


@pytest.fixture(scope="session")
def nameless() -> Redactor:
    return Redactor(names=False, key=KEY)
