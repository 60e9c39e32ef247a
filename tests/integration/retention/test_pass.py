"""A whole pass over the real ledger and real rollouts: what is in play comes from the database, and so does the refusal to go back."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from perennial.audit.log import PostgresAuditLog
from perennial.errors import FilesRemoved
from perennial.flows.retention import Part, run_part
from perennial.flows.rollback import rollback_agent
from perennial.registry.folder_store import FolderStore
from perennial.registry.ledger import PostgresLedger
from perennial.retention.disk import size_of
from perennial.retention.store import PostgresRetention
from perennial.rollout.machine import Plan
from perennial.rollout.store import PostgresRollouts
from perennial.rollout.targets import FolderTarget
from perennial.settings import Settings
from perennial.storage.database import Database as Pool
from tests.postgres_fixture import Database
from tests.unit.registry.samples import Keys, release

PLAN = Plan(steps=(0.5, 1.0))


class World:
    """Releases that go to full one after the other, as corrections do."""

    def __init__(self, database: Database, room: Path) -> None:
        self.pool, self.room, self.keys, self.number = Pool(database.app), room, Keys.make(room / "keys"), 0
        self.store = FolderStore(room / "store")
        self.ports: Any = SimpleNamespace(
            settings=Settings(
                home=room / "home", verify_key_file=self.keys.public, retention_keep_versions=3, retention_keep_champions=2
            ),
            ledger=PostgresLedger(self.pool), models=self.store, retention=PostgresRetention(self.pool, None),
            audit=PostgresAuditLog(self.pool), runs=None, rollouts=PostgresRollouts(self.pool), work=room / "home" / "work",
            targets={"folder": FolderTarget(room / "home" / "serving", {})}, fleet=lambda: SimpleNamespace(agents=()),
            buffer=SimpleNamespace(record_performance=lambda **_: None, performance=lambda *_: ()),
        )  # fmt: skip

    def correct(self) -> None:
        """One release to full."""
        ledger, version = self.ports.ledger, f"1.0.{self.number}"
        made = release(
            self.room, self.keys, agent="scout", version=version, order=ledger.reserve_order(),
            base_version=f"1.0.{self.number - 1}" if self.number else None,
        )  # fmt: skip
        where = self.store.publish(
            made.folder, made.signature, made.manifest, digest=made.digest, metrics={}, params={}, tags={},
            job_id=made.manifest.job_id,
        )  # fmt: skip
        ledger.record_version(made.manifest, digest=made.digest, uri=where.uri, mlflow_run_id=None)
        row = self.ports.rollouts.open(agent="scout", version=version, plan=PLAN, run_id=f"run-{self.number}")
        self.ports.rollouts.promote_full(row.id, actor="perennial", reason="met its plan")
        self.number += 1

    def clean(self) -> Any:
        return run_part(self.ports, Part.VERSIONS, now=datetime.now(UTC))

    def there(self) -> list[str]:
        return [row.version for row in self.ports.ledger.versions("scout") if self.store.exists("scout", row.version)]


@pytest.fixture
def world(database: Database, tmp_path: Path) -> Any:
    made = World(database, tmp_path)
    yield made
    made.pool.close()


@pytest.mark.req("J91", "D10")
def test_disk_has_a_plateau_and_the_way_back_stays_open(world: World) -> None:
    sizes = []
    for _ in range(2):
        for _ in range(6):
            world.correct()
        world.clean()
        sizes.append(size_of(world.store._root))
    assert world.there() == [
        "1.0.11",
        "1.0.10",
        "1.0.9",
        "1.0.8",
    ]  # the newest three, and the base of the oldest of them
    assert abs(sizes[1] - sizes[0]) < 100  # longer names alone: six more corrections left nothing
    assert len(world.ports.ledger.versions("scout")) == 12
    assert [row.version for row in world.ports.retention.removals("scout")] == [f"1.0.{number}" for number in range(8)]
    world.ports.rollouts.rollback("scout", "1.0.9", actor="editor", reason="worse")
    assert world.ports.rollouts.previous_champion("scout") == "1.0.8"
    world.correct()
    world.clean()
    assert set(world.there()) >= {"1.0.12", "1.0.9", "1.0.8"}  # what a rollback goes to stays, however old
    with pytest.raises(FilesRemoved, match=r"scout 1\.0\.3 were removed by retention"):
        rollback_agent(world.ports, "scout", actor="editor", reason="worse", version="1.0.3")
    assert world.ports.ledger.champion("scout") == "1.0.12"
