"""Fixtures that every room may use."""

import pytest

pytest_plugins = ["tests.postgres_fixture", "tests.stack_fixture"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests on the session's running stack come last: it takes half a core for as long as it is up.

    Among them those that look at it at rest come before those that train on it.
    """
    items.sort(key=lambda item: ("stack" in getattr(item, "fixturenames", ()), "acceptance" in item.path.parts))
