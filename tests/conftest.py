"""Fixtures that every room may use."""

import os

import pytest
from hypothesis import settings

# The result of a test depends on the code alone: examples are drawn from a fixed seed. `HYPOTHESIS_PROFILE=explore make test`
# draws new ones; what it finds belongs into the test as a value that is always tried.
settings.register_profile("fixed", derandomize=True)
settings.register_profile("explore", derandomize=False, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))

pytest_plugins = ["tests.postgres_fixture", "tests.stack_fixture"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests on the session's running stack come last: it takes half a core for as long as it is up.

    Among them those that look at it at rest come before those that train on it.
    """
    items.sort(key=lambda item: ("stack" in getattr(item, "fixturenames", ()), "acceptance" in item.path.parts))
