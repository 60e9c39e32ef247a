"""One deployment in both forms, in memory and on PostgreSQL, in which a test can make go wrong whatever an alert tells of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from perennial.alerts.memory import MemoryAlerts
from perennial.alerts.store import PostgresAlerts
from perennial.audit.log import PostgresAuditLog
from perennial.audit.memory import MemoryAuditLog
from perennial.domain.example import Example
from perennial.domain.job import JobRequest
from perennial.domain.words import JobStatus, Reason
from perennial.fleet import loader
from perennial.flows import fleet_sync
from perennial.flows.ports import Ports
from perennial.ingest.buffer import PostgresBuffer
from perennial.ingest.job_log import JobLog
from perennial.ingest.memory import MemoryBuffer
from perennial.ingest.memory_job_log import MemoryJobLog
from perennial.registry.ledger import PostgresLedger
from perennial.registry.memory import MemoryLedger
from perennial.retention.memory_runs import MemoryRuns
from perennial.rollout.machine import Plan
from perennial.rollout.memory import MemoryRollouts
from perennial.rollout.store import PostgresRollouts
from perennial.settings import Settings
from perennial.storage.database import Database as Pool
from tests.postgres_fixture import Database

FLEET = """
from perennial.fleet import Agent, Breaker, Budget, Task
from perennial.trainers.ewc_text import EwcText

AGENT = Agent(name="scout", owner="tests", trainer=EwcText(), tasks=(Task(name="news"),), breaker=Breaker(refused=3),
              budget=Budget(day_seconds=100.0))
"""
PLAN = Plan(steps=(0.05, 0.5, 1.0))


@dataclass
class Deployment:
    """Ports, and ways to make things go wrong as the flows would."""

    ports: Any
    tamper: Callable[[], None]
    runs: MemoryRuns

    def with_settings(self, **changes: Any) -> None:
        self.ports = replace(self.ports, settings=self.ports.settings.model_copy(update=changes))

    def add_row(self) -> None:
        self.ports.buffer.add(
            Example(
                agent="scout", task="news", input_text=f"A text, {uuid4()}.", expected_output="world", uncertainty=0.5
            )
        )

    def begin(self, *, lease: float = 3600.0, reason: Reason = Reason.THRESHOLD) -> tuple[UUID, int]:
        job_id = self.ports.buffer.open_job(JobRequest(agent="scout", run_id=f"run-{uuid4()}", reason=reason))
        attempt = self.ports.buffer.start_attempt(job_id, lease)
        assert attempt is not None
        return job_id, attempt

    def train(self, *, seconds: float = 1.0, status: JobStatus = JobStatus.COMPLETED) -> UUID:
        job_id, attempt = self.begin()
        self.ports.jobs.add_cost(job_id, attempt, {"train.news": seconds, "evaluate": 1000.0})
        self.ports.buffer.finish(job_id, attempt, status, note=f"scout: {status.value}")
        return job_id

    def judge(self, action: str) -> None:
        self.ports.ledger.add_gate_report(
            agent="scout", job_id=uuid4(), attempt=1, content_digest="d" * 64, action=action,
            report={"summary": f"{action}: slices: news/world fell"},
        )  # fmt: skip

    def roll_out(self, version: str, *, well: bool) -> None:
        row = self.ports.rollouts.open(agent="scout", version=version, plan=PLAN, run_id=f"rollout-{version}")
        if well:
            self.ports.rollouts.promote_full(row.id, actor="test", reason="for the test")
        else:
            self.ports.rollouts.revert(row.id, reason="quality fell", actor="test")


def _ports(room: Path, runs: MemoryRuns, **adapters: Any) -> Any:
    fleet = room / "fleet"
    fleet.mkdir()
    (fleet / "scout.py").write_text(FLEET)
    unused: Any = SimpleNamespace()
    return Ports(
        settings=Settings(home=room, fleet_folder=fleet, alert_lease_seconds=0.0), fleet=partial(loader.load, fleet),
        relay=lambda: 0, admission=None, models=unused, targets={}, bases=unused, embeddings=None, runs=runs, **adapters,
    )  # fmt: skip


@pytest.fixture(params=["memory", "postgres"])
def deployment(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Deployment]:
    runs = MemoryRuns()
    if request.param == "memory":
        buffer, audit = MemoryBuffer(), MemoryAuditLog()
        ports = _ports(
            tmp_path, runs, buffer=buffer, jobs=MemoryJobLog(buffer), ledger=MemoryLedger(), audit=audit,
            rollouts=MemoryRollouts(), alerts=MemoryAlerts(),
        )  # fmt: skip

        def tamper() -> None:
            audit._entries[0] = replace(audit._entries[0], actor="somebody else")

        fleet_sync.sync(ports)
        yield Deployment(ports, tamper, runs)
        return
    database: Database = request.getfixturevalue("database")
    pool = Pool(database.app)
    ports = _ports(
        tmp_path, runs, buffer=PostgresBuffer(pool), jobs=JobLog(pool), ledger=PostgresLedger(pool),
        audit=PostgresAuditLog(pool), rollouts=PostgresRollouts(pool), alerts=PostgresAlerts(pool),
    )  # fmt: skip

    def tamper_in_postgres() -> None:
        with psycopg.connect(database.superuser) as connection:
            connection.execute("ALTER TABLE perennial.audit DISABLE TRIGGER append_only")
            connection.execute(
                "UPDATE perennial.audit SET actor = 'somebody else' WHERE id = (SELECT min(id) FROM perennial.audit)"
            )
            connection.execute("ALTER TABLE perennial.audit ENABLE TRIGGER append_only")

    fleet_sync.sync(ports)
    yield Deployment(ports, tamper_in_postgres, runs)
    pool.close()


@pytest.fixture(params=["memory", "postgres"])
def store(request: pytest.FixtureRequest) -> Iterator[MemoryAlerts | PostgresAlerts]:
    if request.param == "memory":
        yield MemoryAlerts()
        return
    pool = Pool(request.getfixturevalue("database").app)
    yield PostgresAlerts(pool)
    pool.close()
