"""A gateway over a real PostgreSQL, with models that are folders."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from perennial.domain.model import Predictor
from perennial.ingest.buffer import PostgresBuffer
from perennial.rollout.machine import Plan
from perennial.rollout.store import PostgresRollouts
from perennial.serving.gateway import Gateway
from perennial.serving.listener import Listener
from perennial.serving.metrics import Metrics
from perennial.serving.recorder import Recorder
from perennial.serving.store import PostgresServing
from perennial.storage.database import Database as Pool
from tests.postgres_fixture import Database
from tests.unit.api.conftest import RECORD
from tests.unit.serving.world import Fixed, Shelf

PLAN = Plan(steps=(0.25, 1.0))


@dataclass
class Deployment:
    """One gateway process's parts over one database."""

    database: Database
    buffer: PostgresBuffer
    rollouts: PostgresRollouts
    store: PostgresServing
    shelf: Shelf
    recorder: Recorder
    gateway: Gateway
    metrics: Metrics

    def champion(self, version: str, **tasks: Predictor) -> int:
        self.shelf.put(version, **(tasks or {"topic": Fixed("sports"), "quality": Fixed(0.7)}))
        row = self.rollouts.open(agent="scout", version=version, plan=PLAN, run_id=f"run-{version}")
        self.rollouts.promote_full(row.id, actor="test", reason="test")
        return row.id

    def served(self) -> str | None:
        shown = self.gateway.agents().get("scout")
        return None if shown is None else shown["champion"]


@pytest.fixture
def deployment(database: Database, tmp_path: Path) -> Iterator[Deployment]:
    pools = [Pool(database.app), Pool(database.app, wait_seconds=1.0)]
    buffer, rollouts, store = PostgresBuffer(pools[0]), PostgresRollouts(pools[0]), PostgresServing(pools[1])
    buffer.sync_agents([json.loads(json.dumps(RECORD))])
    shelf, metrics = Shelf(tmp_path / "bundles"), Metrics()
    recorder = Recorder(store, buffer, metrics)
    gateway = Gateway(store=store, source=shelf, loader=shelf, recorder=recorder, metrics=metrics, instance="host:8600")
    listener = Listener(database.app, gateway.wake)
    for part in (recorder, gateway, listener):
        part.start()
    yield Deployment(database, buffer, rollouts, store, shelf, recorder, gateway, metrics)
    for part in (listener, gateway, recorder):
        part.stop()
    for pool in pools:
        pool.close()
