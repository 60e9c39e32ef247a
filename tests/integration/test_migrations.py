"""Migrations make the schema from empty, once, and refuse to be edited afterwards."""

from __future__ import annotations

import psycopg
import pytest

from perennial.storage.migrate import migrate, migrations
from tests.postgres_fixture import Database


def test_a_second_run_changes_nothing(database: Database) -> None:
    assert migrate(database.owner) == []
    with psycopg.connect(database.owner) as connection:
        rows = connection.execute("SELECT count(*) FROM public.perennial_migrations").fetchone()
    assert rows == (len(migrations()),)


@pytest.mark.req("K31", "K68")
@pytest.mark.parametrize("role", ["app"])
def test_originals_are_closed_to_the_app_role(database: Database, role: str) -> None:
    with psycopg.connect(getattr(database, role)) as connection:
        connection.execute("INSERT INTO perennial.originals (example_id, input_text) VALUES (gen_random_uuid(), 'x')")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("SELECT input_text FROM perennial.originals")
    with psycopg.connect(database.admit) as connection:
        connection.execute("SELECT input_text FROM perennial.originals")


@pytest.mark.req("K31")
@pytest.mark.parametrize(
    "table",
    [
        "versions", "alias_moves", "gate_reports", "approvals", "approval_questions", "validations", "audit", "audit_batches",
        "version_examples", "serving_history", "retention_holds", "removed_bundles", "breaker_resets",
        "agent_overrides",
    ],
)  # fmt: skip
def test_append_only_tables_refuse_change_even_by_their_owner(database: Database, table: str) -> None:
    for url, error in (
        (database.app, psycopg.errors.InsufficientPrivilege),
        (database.owner, psycopg.errors.RaiseException),
    ):
        with psycopg.connect(url) as connection, pytest.raises(error):
            connection.execute(f"TRUNCATE perennial.{table}")  # type: ignore[arg-type]
