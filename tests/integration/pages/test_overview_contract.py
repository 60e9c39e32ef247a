"""Both forms of the overview keep one contract: the bounded statements on PostgreSQL, and the twin over any store's own methods."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest

from perennial.audit.memory import MemoryAuditLog
from perennial.domain.example import Example
from perennial.domain.job import JobRequest
from perennial.domain.words import JobStatus, Priority, Reason, Source
from perennial.errors import StoreUnavailable
from perennial.fleet.loader import Fleet
from perennial.flows.ports import Ports
from perennial.ingest.admit import Admission
from perennial.ingest.buffer import PostgresBuffer
from perennial.ingest.memory import MemoryAdmission, MemoryBuffer
from perennial.pages import overview
from perennial.pages.overview import Overview, PortsOverview, PostgresOverview
from perennial.registry.ledger import PostgresLedger
from perennial.registry.rows import Alias
from perennial.rollout.machine import Plan
from perennial.rollout.memory import MemoryRollouts
from perennial.rollout.store import PostgresRollouts
from perennial.settings import Settings
from perennial.storage.database import Database as Pool
from tests.contract.test_stores import accept, record
from tests.rollout_world import JoinedLedger

pytestmark = pytest.mark.req("J50")
PLAN = Plan(steps=(0.25, 1.0))


@dataclass
class World:
    """One deployment's stores, the overview under test and the twin over the same stores."""

    ports: Ports
    overview: Overview
    admission: Any

    def add(self, count: int, agent: str = "scout", task: str = "sentiment", admit: bool = True, **more: Any) -> None:
        rows = [
            Example(agent=agent, task=task, input_text=f"{uuid4()}", expected_output="good", uncertainty=0.5,
                    created_at=datetime(2026, 11, 1, tzinfo=UTC), **more)
            for _ in range(count)
        ]  # fmt: skip
        self.ports.buffer.add_many(rows)
        if admit:
            self.admission.run(agent, accept)

    def verdict(self, action: str, agent: str = "scout") -> Any:
        job = uuid4()
        self.ports.ledger.add_gate_report(
            agent=agent,
            job_id=job,
            attempt=1,
            content_digest="d",
            action=action,
            report={"summary": f"{action}: because"},
        )
        return job

    def states(self, agent: str = "scout") -> dict[tuple[str, str], int]:
        return {(tally.task, tally.state): tally.rows for tally in self.overview.standings([agent])[agent].tallies}


def _ports(buffer: Any, ledger: Any, rollouts: Any) -> Ports:
    return Ports(
        settings=Settings(), fleet=lambda: Fleet(members=(), errors=()), buffer=buffer, jobs=SimpleNamespace(),  # type: ignore[arg-type]
        relay=lambda: 0, admission=None, ledger=ledger, models=SimpleNamespace(), audit=MemoryAuditLog(),  # type: ignore[arg-type]
        rollouts=rollouts, targets={}, bases=SimpleNamespace(), embeddings=None,  # type: ignore[arg-type]
    )  # fmt: skip


@pytest.fixture(params=["memory", "postgres"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    if request.param == "memory":
        buffer, rollouts = MemoryBuffer(), MemoryRollouts()
        ports = _ports(buffer, JoinedLedger(rollouts, lambda: datetime.now(UTC)), rollouts)
        made = World(ports, PortsOverview(ports), MemoryAdmission(buffer))
        close: Callable[[], None] = lambda: None  # noqa: E731
    else:
        database = request.getfixturevalue("database")
        pool, admit = Pool(database.app), Pool(database.admit)
        ports = _ports(PostgresBuffer(pool), PostgresLedger(pool), PostgresRollouts(pool))
        made = World(ports, PostgresOverview(pool), Admission(admit))

        def close() -> None:
            pool.close()
            admit.close()

    made.ports.buffer.sync_agents([record(tasks=("sentiment", "topic")), record("desk")])
    yield made
    close()


def test_an_agent_of_which_nothing_is_known(world: World) -> None:
    found = world.overview.standings(["desk", "nobody"])
    assert list(found) == ["desk", "nobody"]
    assert found["nobody"].due is None
    assert (found["desk"].champion, found["desk"].tallies, found["desk"].trend, found["desk"].verdict) == (
        None,
        (),
        (),
        None,
    )
    assert found["desk"].due is not None
    assert not found["desk"].due.due


def test_the_buffer_by_task_and_state(world: World) -> None:
    world.add(3)
    world.add(2, task="topic")
    world.add(1, agent="desk")
    job = world.ports.buffer.open_job(JobRequest(agent="scout", run_id="run"))
    attempt = world.ports.buffer.start_attempt(job, 60.0) or 0
    rows = world.ports.buffer.claim("scout", job, attempt, 4)
    assert sum(world.states().values()) == 5
    assert sum(rows for (_, state), rows in world.states().items() if state == "claimed") == 4
    world.ports.buffer.set_aside(job, attempt, [rows[0].example_id], state="held", reason="label_conflict")
    world.ports.buffer.settle_trained(job, attempt, "1.0.0")
    world.ports.buffer.finish(job, attempt, JobStatus.COMPLETED, version="1.0.0")
    world.add(2, admit=False)
    states = world.states()
    assert {state: sum(rows for (_, one), rows in states.items() if one == state) for _, state in states} == {
        "raw": 2, "ready": 1, "held": 1, "trained": 3,
    }  # fmt: skip
    assert world.states("desk") == {("sentiment", "ready"): 1}


def test_counting_stops_at_the_limit(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overview, "MOST", 5)
    world.add(9)
    (tally,) = world.overview.standings(["scout"])["scout"].tallies
    assert (tally.state, tally.rows, tally.more) == ("ready", 5, True)


def test_what_serves_and_what_is_on_its_way(world: World) -> None:
    rollouts, ledger = world.ports.rollouts, world.ports.ledger
    row = rollouts.open(agent="scout", version="1.0.0", plan=PLAN, run_id="one")
    rollouts.promote_full(row.id, actor="ana", reason="first")
    if isinstance(ledger, JoinedLedger):  # on PostgreSQL the rollout moves the ledger's alias itself
        ledger.release("scout", "1.0.0")
        ledger.move_alias("scout", Alias.CHAMPION, "1.0.0", actor="ana", reason="first")
    other = rollouts.open(agent="scout", version="1.0.1", plan=PLAN, run_id="two")
    rollouts.begin_shadow(other.id)
    rollouts.set_step(other.id, step=0, weight=0.25, actor="perennial")
    standing = world.overview.standings(["scout"])["scout"]
    assert (standing.champion, standing.moved_by, standing.candidate, standing.share) == ("1.0.0", "ana", "1.0.1", 0.25)
    assert standing.since is not None
    assert (standing.rollout_version, standing.rollout_state) == ("1.0.1", "canary")
    rollouts.revert(other.id, reason="errors", actor="perennial")
    standing = world.overview.standings(["scout"])["scout"]
    assert (standing.candidate, standing.rollout_state, standing.rollout_reason) == (None, "reverted", "errors")


def test_the_newest_verdicts_and_the_trend(world: World) -> None:
    first, last = world.verdict("pass"), world.verdict("hold")
    world.verdict("approve", agent="desk")
    assert [one.job_id for one in world.overview.verdicts("scout", 5)] == [last, first]
    standing = world.overview.standings(["scout"])["scout"]
    assert standing.verdict is not None
    assert (standing.verdict.action, standing.verdict.summary) == ("hold", "hold: because")
    for number in range(overview.TREND + 3):
        world.ports.buffer.record_performance(
            agent="scout", model_name=f"scout-{number}", before=None, after=number / 100, examples=1, rollback=number % 2 == 1,
            job_id=uuid4(), version=f"1.0.{number}",
        )  # fmt: skip
    trend = world.overview.standings(["scout", "desk"])["scout"].trend
    assert [one.score for one in trend] == [number / 100 for number in range(3, overview.TREND + 3)]
    assert [one.refused for one in trend[:2]] == [True, False]


def test_what_is_due_and_what_trains(world: World) -> None:
    world.add(2)
    world.ports.buffer.request_training("desk", reason=Reason.REQUEST, requested_by="ana")
    world.add(1, source=Source.CORRECTION, priority=Priority(2))
    found = world.overview.standings(["scout", "desk"])
    assert found["scout"].due is not None
    assert (found["scout"].due.reason, found["scout"].due.corrections, found["scout"].due.threshold) == (
        Reason.CORRECTION,
        1,
        50,
    )
    assert found["desk"].due is not None
    assert found["desk"].due.reason is Reason.REQUEST
    job = world.ports.buffer.open_job(JobRequest(agent="scout", run_id="run"))
    world.ports.buffer.start_attempt(job, 60.0)
    found = world.overview.standings(["scout", "desk"])
    assert (found["scout"].running, found["scout"].due) == (True, None)
    assert not found["desk"].running


def test_the_twin_says_the_same_over_the_same_stores(world: World) -> None:
    world.add(3)
    world.verdict("hold")
    row = world.ports.rollouts.open(agent="scout", version="1.0.0", plan=PLAN, run_id="one")
    world.ports.rollouts.begin_shadow(row.id)
    twin = PortsOverview(world.ports)
    assert world.overview.standings(["scout", "desk"]) == twin.standings(["scout", "desk"])
    assert world.overview.verdicts("scout", 9) == twin.verdicts("scout", 9)
    assert world.overview.versions("scout", 9) == twin.versions("scout", 9) == ()


def test_an_outage_is_said() -> None:
    pool = Pool("postgresql://nobody@127.0.0.1:1/none", wait_seconds=0.1)
    with pytest.raises(StoreUnavailable):
        PostgresOverview(pool).standings(["scout"])
    pool.close()
