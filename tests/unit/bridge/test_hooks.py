"""Which database a task reaches, and what it may read there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest

from perennial.bridge import hooks
from perennial.settings import Settings


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[Settings]]:
    """The settings of every ports that are made, with connections of two roles and an empty home."""
    settings: list[Settings] = []

    def ports_from(chosen: Settings) -> Any:
        settings.append(chosen)
        return SimpleNamespace(settings=chosen)

    monkeypatch.setitem(__import__("sys").modules, "perennial.wiring", SimpleNamespace(ports_from=ports_from))
    monkeypatch.setattr("perennial.wiring", SimpleNamespace(ports_from=ports_from), raising=False)
    for name in ("PERENNIAL_DATABASE_URL", "DATABASE_URL", "POSTGRES_HOST", "PERENNIAL_ADMIT_DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PERENNIAL_HOME", str(tmp_path))
    monkeypatch.setenv("AIRFLOW_CONN_PERENNIAL_DB", "postgres://app:s%2Fe@db:5433/perennial")
    monkeypatch.setenv("AIRFLOW_CONN_PERENNIAL_ADMIT_DB", "postgres://admit:x@db:5433/perennial")
    hooks._known.clear()
    yield settings
    hooks._known.clear()


def test_the_connection_names_the_database(made: list[Settings]) -> None:
    hooks.task_ports()
    assert made[0].app_url() == "postgresql://app:s%2Fe@db:5433/perennial"


@pytest.mark.parametrize("name", ["PERENNIAL_DATABASE_URL", "DATABASE_URL", "POSTGRES_HOST"])
def test_the_connection_wins_over_what_the_worker_exports_for_another_program(
    made: list[Settings], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "shop" if name == "POSTGRES_HOST" else "postgresql://me@elsewhere/shop")
    hooks.task_ports()
    hooks.task_ports(admit=True)
    assert {one.app_url() for one in made} == {"postgresql://app:s%2Fe@db:5433/perennial"}
    assert hooks.database_url() == "postgresql://app:s%2Fe@db:5433/perennial"


def test_only_who_admits_gets_the_role_that_reads_originals(made: list[Settings], tmp_path: Path) -> None:
    (tmp_path / "connections.json").write_text('{"admit_database_url": "postgresql://admit@home/x"}')
    hooks.task_ports()
    hooks.task_ports(admit=True)
    assert made[0].admit_database_url is None  # not even the home folder's
    assert urlsplit(made[1].admit_url()).username == "admit"


def test_ports_are_made_once_per_process(made: list[Settings], monkeypatch: pytest.MonkeyPatch) -> None:
    assert hooks.task_ports() is hooks.task_ports()
    assert len(made) == 1
    monkeypatch.setattr(hooks.os, "getpid", lambda: -1)  # what a fork sees
    hooks.task_ports()
    assert len(made) == 2


def test_without_a_connection_the_settings_decide(made: list[Settings], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AIRFLOW_CONN_PERENNIAL_DB")
    monkeypatch.setenv("PERENNIAL_DATABASE_URL", "postgresql://app@elsewhere/perennial")
    monkeypatch.setattr(hooks, "_connection_url", lambda name: None)
    assert hooks.database_url() == "postgresql://app@elsewhere/perennial"
    hooks.task_ports()
    assert made[0].app_url() == "postgresql://app@elsewhere/perennial"


def test_extras_of_a_connection_reach_the_driver_by_name_only() -> None:
    extra = {"sslmode": "verify-full", "options": "-c role=postgres", "passfile": "/etc/passwd", "service": "x"}
    connection = SimpleNamespace(login=None, password=None, host=None, port=None, schema=None, extra_dejson=extra)
    assert hooks.url_of(connection) == "postgresql://postgres@127.0.0.1:5432/perennial?sslmode=verify-full"
