"""A deployment with one agent, reached the way an agent's process reaches it: by environment."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from perennial.client import close_connection_pool
from perennial.client.shared import forget_coordinator
from perennial.ingest.buffer import PostgresBuffer
from perennial.storage.database import Database
from tests.postgres_fixture import Database as Urls

TASKS = (("sentiment", "classification"), ("topic", "classification"), ("quality", "score"))


def record(agent: str, *, own: dict[str, Any] | None = None, **changed: Any) -> dict[str, Any]:
    tasks = [{"task": task, "kind": kind, "labels": None, "max_length": 20_000, "aliases": []} for task, kind in TASKS]
    return {
        "agent": agent, "record": own or {}, "file_digest": "", "update_threshold": 50, "max_buffer_size": 1000,
        "holdout_share": 0.0, "tasks": tasks, **changed,
    }  # fmt: skip


@pytest.fixture
def buffer(database: Urls, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[PostgresBuffer]:
    """The deployment's buffer; the client of this process starts anew and finds it by PERENNIAL_DATABASE_URL."""
    for name in ("DATABASE_URL", "POSTGRES_HOST", *(f"TRAINING_{n}" for n in ("UPDATE_THRESHOLD", "MAX_BUFFER_SIZE"))):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PERENNIAL_HOME", str(tmp_path))
    monkeypatch.setenv("PERENNIAL_DATABASE_URL", database.app)
    pool = Database(database.app)
    made = PostgresBuffer(pool)
    made.sync_agents([record("scout"), record("analyst")])
    close_connection_pool()
    forget_coordinator()
    yield made
    close_connection_pool()
    forget_coordinator()
    pool.close()
