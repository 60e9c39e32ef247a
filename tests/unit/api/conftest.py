"""A data plane over twins in memory, and a caller."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from perennial.api.app import create_app
from perennial.api.intake import Intake
from perennial.api.reports import Reports
from perennial.api.services import Limits, Services
from perennial.domain.example import Example
from perennial.errors import StoreUnavailable
from perennial.ingest.door import Door
from perennial.ingest.memory import MemoryBuffer
from perennial.ingest.results import AddResult
from perennial.serving.feedback import Outcomes
from tests.unit.serving.world import World

RECORD = {
    "agent": "scout", "record": {}, "file_digest": "x", "update_threshold": 50, "max_buffer_size": 1000,
    "holdout_share": 0.0,
    "tasks": [
        {"task": "topic", "kind": "classification", "labels": ["sports", "world"], "max_length": 1000,
         "aliases": ["news_topic"]},
        {"task": "quality", "kind": "score", "labels": None, "max_length": 1000, "aliases": []},
    ],
}  # fmt: skip


class OneBuffer(MemoryBuffer):
    """The buffer; ``away`` plays an outage of PostgreSQL."""

    away = False

    def add_many(self, *args: Any, **named: Any) -> AddResult:
        if self.away:
            raise StoreUnavailable("the buffer is away; nothing was acknowledged")
        return super().add_many(*args, **named)


@dataclass
class Plane:
    """The app's parts and a client; ``rolled_back`` lists what was ordered."""

    world: World
    buffer: OneBuffer
    client: TestClient
    services: Services
    rolled_back: list[tuple[str, str | None, str, str]] = field(default_factory=list)

    def post(self, path: str, body: Any) -> Any:
        return self.client.post(path, content=json.dumps(body), headers={"content-type": "application/json"})

    @property
    def stored(self) -> list[Example]:
        """What is in the buffer."""
        return [row.example for row in self.buffer.state.of("scout")]


def plane_of(root: Path, *, faults: bool = False, limits: Limits | None = None) -> Plane:
    world = World(root, faults=faults)
    buffer = OneBuffer()
    buffer.sync_agents([RECORD])
    ordered: list[tuple[str, str | None, str, str]] = []

    def roll_back(agent: str, *, version: str | None, actor: str, reason: str) -> dict[str, Any]:
        if world.store.away:
            raise StoreUnavailable("PostgreSQL is away")
        to = version or world.rollouts.previous_champion(agent) or ""
        world.rollouts.rollback(agent, to, actor=actor, reason=reason)
        ordered.append((agent, version, actor, reason))
        return {"agent": agent, "to": to}

    services = Services(
        gateway=world.gateway, metrics=world.metrics, roll_back=roll_back,
        outcomes=Outcomes(world.store, world.recorder, buffer, world.metrics), intake=Intake(buffer, Door(buffer)),
        reports=Reports(world.rollouts.report, world.recorder.find, key=b"test"), limits=limits or Limits(),
    )  # fmt: skip
    client = TestClient(create_app(services), base_url="http://127.0.0.1")
    return Plane(world=world, buffer=buffer, client=client, services=services, rolled_back=ordered)


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[Plane]:
    made = plane_of(tmp_path)
    with made.client:
        yield made
    made.world.close()


@pytest.fixture
def drill(tmp_path: Path) -> Iterator[Plane]:
    """The same, started for drills."""
    made = plane_of(tmp_path, faults=True)
    with made.client:
        yield made
    made.world.close()
