"""Fixtures that every room may use."""

pytest_plugins = ["tests.postgres_fixture", "tests.stack_fixture"]
